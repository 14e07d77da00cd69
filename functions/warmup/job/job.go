// Package job is the warm-up as the settings say, wired: every program that
// runs it adds only what its platform knows.
package job

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/cache"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/memcached"
	"github.com/thaw-project/thaw/extension/meter"
	"github.com/thaw-project/thaw/extension/origin"
	"github.com/thaw-project/thaw/extension/rescue"
	"github.com/thaw-project/thaw/extension/tier"
	"github.com/thaw-project/thaw/extension/vault"
	"github.com/thaw-project/thaw/extension/wait"
	"github.com/thaw-project/thaw/functions/warmup"
	"github.com/thaw-project/thaw/functions/warmup/backoff"
)

// legacyWorkers is how many the legacy implementation has.
const legacyWorkers = 5

// Job is the warm-up: every part, wired.
type Job struct {
	cfg       config.Config
	o         Options
	client    *vault.Client
	memcached *memcached.Client
	backoff   *backoff.Backoff  // nil: the legacy implementation
	Audiences []warmup.Audience // whose caches are warmed
	warmer    *warmup.Warmer
	emf       *meter.EMF
}

// Options are what the platform adds.
type Options struct {
	Log      *slog.Logger                             // required
	Progress io.Writer                                // a terminal; nil: none
	Metrics  io.Writer                                // gets a line of metrics for each run, if THAW_EMF; nil: none
	Login    auth.Platform                            // by what only the platform has; nil: none
	Unwrap   tier.Unwrap                              // decrypts the shared tier's keys; nil: AWS KMS does, if THAW_CACHE_KEY_KMS is set
	Blobs    func(container string) warmup.Place      // where THAW_DUMP is an https address; nil: not here
	Bucket   func(config.Config, string) warmup.Place // where it is an s3 address, by the bucket's name; nil: not here
}

// Check refuses settings with which nothing can be done.
func Check(cfg config.Config, purge bool) error {
	var errs []error
	if !cfg.CacheEnable || len(cfg.Memcached) == 0 {
		errs = append(errs, errors.New("there is no shared cache to warm; set CACHE_ENABLE=true, THAW_MEMCACHED and THAW_CACHE_KEY"))
	}
	if purge {
		return errors.Join(errs...)
	}
	if !cfg.Warm.Enable {
		errs = append(errs, errors.New("the warm-up is not enabled; set PROACTIVE_CACHE_ENABLE=true"))
	}
	if len(cfg.Warm.Paths)+len(cfg.Warm.Audiences) == 0 {
		errs = append(errs, errors.New("no prefix is named; set THAW_WARM_PATHS to mounts and folders (secret/,kv/app/) or, for every KV secret that the warm-up's identity may read, to *: "+
			"all of it is then shared with every function that has the audience "+cfg.Audience+" and its key; or set THAW_WARM_AUDIENCES"))
	}
	if cfg.Auth.Method == config.AuthNone {
		errs = append(errs, errors.New("the warm-up needs a login of its own; set VAULT_AUTH_ROLE, THAW_AUTH_METHOD or VAULT_TOKEN"))
	}
	return errors.Join(errs...)
}

// Build wires everything. It opens no connection but to a key service.
func Build(cfg config.Config, o Options) (*Job, error) {
	a := &Job{cfg: cfg, o: o, emf: meter.NewEMF(cfg.Platform.FunctionName, true)}
	var err error
	// No retries: the backoff and the passes decide what is asked again.
	origins := vault.Options{Config: cfg, Logger: o.Log}
	origins.MaxRetries = 0
	a.client, err = vault.New(origins)
	if err != nil {
		return nil, err
	}
	if err := a.client.Check(); err != nil {
		return nil, err
	}
	workers, through := cfg.Warm.Workers, origin.Client(a.client)
	if cfg.Warm.Recommended {
		a.backoff = backoff.New(backoff.Options{Attempts: 10 * workers, Held: func(d time.Duration) {
			o.Log.Debug("the origin's rate limit is reached: all workers wait", "seconds", d.Seconds())
		}})
		through = backoff.NewClient(a.client, a.backoff)
	} else {
		workers = legacyWorkers
		if cfg.Warm.Enable {
			o.Log.Warn("the legacy warm-up runs: five workers, and nothing that heeds a rate limit. To migrate set NEW_PROACTIVE_CACHE_ENABLE=true, and PROACTIVE_CACHE_WORKERS if 3 are not right; PROACTIVE_CACHE_DUMP_INTERVAL has no effect then")
		}
	}
	tokens, err := auth.New(auth.Options{Config: cfg, Log: o.Log, Origin: through, Login: o.Login})
	if err != nil {
		return nil, err
	}
	if a.memcached, err = tier.Open(cfg, max(cfg.MemcachedTimeout, patience), tier.Host{}, o.Log); err != nil {
		return nil, err
	}
	if a.Audiences, err = openAudiences(cfg, a.memcached, o); err != nil {
		return nil, err
	}
	options := warmup.Options{
		Audiences: a.Audiences, Origin: warmup.NewOrigin(through, tokens), Asker: warmup.NewAsker(a.client, a.backoff), Backoff: a.backoff,
		Workers: workers, FullEvery: cfg.CacheTTL, ModifiedEvery: cfg.Warm.FetchEvery, Keep: cfg.CacheTTL + cfg.StaleIfError,
		ConfirmedOnly: cfg.Warm.ConfirmedOnly,
		Skip:          append(append([]string(nil), cfg.NoSharePaths...), cfg.NoCachePaths...), Log: o.Log,
	}
	for _, row := range a.Audiences {
		for _, m := range cfg.KVMounts {
			options.Mounts = append(options.Mounts, cache.Mount{Namespace: row.Namespace, Path: m.Path, Version: m.Version})
		}
	}
	if cfg.Warm.Dump != "" && !cfg.Warm.Recommended {
		if options.Backup, err = backup(cfg, o); err != nil {
			return nil, err
		}
	}
	if o.Progress != nil {
		options.Progress = func(s warmup.Summary) {
			a.say(fmt.Sprintf("warming: %d read, %d changed, %d removed, %d failed, %d refused", s.Fetched, s.Changed, s.Removed, len(s.Failed)+s.FailedMore, s.RateLimited))
		}
	}
	a.warmer = warmup.New(options)
	return a, nil
}

// stamps tells whether what is verified here is of use to functions, if they
// have the same settings.
func (a *Job) stamps() bool { return a.cfg.MaxAge > a.cfg.ClockSkew }

// say shows one line of progress on the terminal, over the last one.
func (a *Job) say(line string) {
	if a.o.Progress != nil {
		fmt.Fprintf(a.o.Progress, "\r\x1b[K%s", line)
	}
}

// Close ends the connections.
func (a *Job) Close() {
	a.client.Close()
	a.memcached.Close()
}

// Loop runs until ctx ends: what is due, as the leader of its audiences, or
// nothing while another instance leads. For programs that don't end by themselves.
func (a *Job) Loop(ctx context.Context) {
	for ctx.Err() == nil {
		order := warmup.Order{}
		if a.stamps() {
			order.For = time.Hour
		}
		rescue.Do(a.o.Log, "warm the shared cache", func() { a.Run(ctx, order) })
		_ = wait.For(ctx, loopEvery)
	}
}

// loopEvery is how often what is due, and whether somebody leads, is looked at.
const loopEvery = 15 * time.Second

// backup is where THAW_DUMP says.
func backup(cfg config.Config, o Options) (*warmup.Backup, error) {
	b := &warmup.Backup{Place: warmup.Files{}, Name: cfg.Warm.Dump, Every: cfg.Warm.DumpEvery}
	if rest, ok := strings.CutPrefix(cfg.Warm.Dump, "https://"); ok {
		if o.Blobs == nil {
			return nil, errors.New("THAW_DUMP: Azure Blob storage needs thaw-azure, the program for Azure Functions")
		}
		host, path, _ := strings.Cut(rest, "/")
		container, blob, _ := strings.Cut(path, "/")
		b.Name, b.Place = blob, o.Blobs("https://"+host+"/"+container)
	}
	if rest, ok := strings.CutPrefix(cfg.Warm.Dump, "s3://"); ok {
		if o.Bucket == nil {
			return nil, errors.New("THAW_DUMP: S3 needs the warm-up's own program; give a file here")
		}
		bucket, key, _ := strings.Cut(rest, "/")
		b.Name, b.Place = key, o.Bucket(cfg, bucket)
	}
	return b, nil
}
