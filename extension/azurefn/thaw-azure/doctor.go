package main

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/thaw-project/thaw/extension/auth"
	"github.com/thaw-project/thaw/extension/azure"
	"github.com/thaw-project/thaw/extension/config"
	"github.com/thaw-project/thaw/extension/doctor"
	"github.com/thaw-project/thaw/extension/tier"
)

// runDoctor finds what keeps thaw-azure from working in this app: the checks of
// every program, and before the login those of what Azure gives.
func runDoctor(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	checks := doctor.Checks()
	login := slices.IndexFunc(checks, func(c doctor.Check) bool { return c.Name == "auth" })
	checks = slices.Insert(checks, login,
		doctor.Check{Name: "plan", One: planCheck}, doctor.Check{Name: "host", One: hostCheck},
		doctor.Check{Name: "identity", Moot: wantsIdentity, One: identityCheck}, doctor.Check{Name: "blob", Moot: wantsBlob, One: blobCheck})
	return doctor.Main(ctx, doctor.Program{
		Name: "thaw-azure doctor", Version: version, Args: args, Stdout: stdout, Stderr: stderr,
		Options: doctor.Options{
			Environ: environ, Azure: config.ForAzure(), Checks: checks,
			Platform: func(cfg config.Config, log *slog.Logger) (auth.Platform, tier.Unwrap, error) {
				p, err := newPlatform(cfg, log)
				return p.login(), p.unwrap, err
			},
		},
	})
}

// planCheck tells which hosting plan thaw takes this to be.
func planCheck(_ context.Context, e *doctor.Exam) doctor.Finding {
	a := e.Config.Platform.Azure
	how := "WEBSITE_SKU=" + a.SKU
	if a.SKU == "" {
		how = "WEBSITE_SKU is not set"
	}
	freezes := "never freezes: secrets are also verified between invocations (THAW_RECHECK)"
	if a.Plan.Freezes() {
		freezes = "may freeze between invocations: secrets are verified at each of them"
	}
	plan := doctor.Fine(fmt.Sprintf("hosting plan %s (%s), which %s", a.Plan, how, freezes))
	if a.Site != "" {
		return plan
	}
	e.Tell(plan)
	return doctor.Advise("this is no Azure Functions app: WEBSITE_SITE_NAME is not set", "what only the app has, its managed identity above all, cannot be looked at here", "run it in the app, by SSH")
}

// hostCheck looks at the app's files.
func hostCheck(_ context.Context, e *doctor.Exam) doctor.Finding {
	a := e.Config.Platform.Azure
	root := cmp.Or(a.AppRoot, ".")
	var host hostFile
	const why = "the host starts what host.json names, and nothing else"
	switch err := host.read(root); {
	case errors.As(err, new(*fs.PathError)):
		return doctor.Unseen("host.json is not here", "run it in the function app's folder (/home/site/wwwroot)")
	case err != nil:
		return doctor.Fault(err.Error(), why, "correct it")
	case !strings.HasSuffix(host.CustomHandler.Description.Executable, "thaw-azure"):
		return doctor.Fault("host.json does not start thaw-azure", why, `set customHandler.description.defaultExecutablePath to "thaw-azure", and arguments to ["--", "your", "handler"]`)
	}
	command := host.CustomHandler.Description.Arguments
	if i := slices.Index(command, "--"); i >= 0 {
		command = command[i+1:]
	}
	if len(command) > 0 && slices.Contains([]string{"npm", "npx", "yarn", "sh", "bash"}, filepath.Base(command[0])) {
		e.Tell(doctor.Advise("host.json starts the handler through "+command[0], "the host ends handlers with SIGKILL, after which what that has started goes on without a parent", "name the handler itself, such as node handler.js"))
	}
	if t, err := readHostJSON(root, a.FunctionTimeout); err != nil {
		e.Tell(doctor.Fault(err.Error(), "the warm-up must end before the host ends it", "correct it in host.json"))
	} else if e.Config.Warm.Enable && t.function > 0 && t.function < time.Minute {
		e.Tell(doctor.Advise("functionTimeout is "+t.function.String(), "a warm-up needs ten seconds at its end, and resumes at the next firing", "raise it"))
	}
	name := e.Config.Warm.Function
	if text, err := os.ReadFile(filepath.Join(root, name, "function.json")); e.Config.Warm.Enable && (err != nil || !strings.Contains(string(text), "timerTrigger")) {
		e.Tell(doctor.Fault("PROACTIVE_CACHE_ENABLE is true, and the app has no timer function "+name, "nobody starts the warm-up",
			"add the folder "+name+" with a function.json (functions/azure has one), or set THAW_WARM_FUNCTION to the timer's name"))
	}
	return doctor.Fine("host.json starts thaw-azure")
}

// wantsIdentity says why there is nothing to ask the identity for.
func wantsIdentity(e *doctor.Exam) string {
	c := e.Config
	if c.Auth.AzureResource == "" && len(c.CacheKeyVault) == 0 && !strings.HasPrefix(c.Warm.Dump, "https://") {
		return "no setting asks for the managed identity"
	}
	return ""
}

// identityCheck gets a token for Vault and tells whose it is: what a role has to
// be bound to.
func identityCheck(ctx context.Context, e *doctor.Exam) doctor.Finding {
	c := e.Config
	const why = "the login, Key Vault and Blob storage need the app's managed identity"
	p, err := identified(c)
	if err != nil {
		return doctor.Fault(err.Error(), why, "turn on the app's system-assigned identity, or assign one and set THAW_AZURE_CLIENT_ID")
	}
	if c.Auth.AzureResource == "" {
		return doctor.Finding{}
	}
	token, err := p.credential.Token(ctx, c.Auth.AzureResource)
	if err != nil {
		return doctor.Fault(err.Error(), why, "see THAW_AZURE_RESOURCE and THAW_AZURE_CLIENT_ID")
	}
	var claims struct{ Aud, Iss, OID string }
	if parts := strings.Split(token, "."); len(parts) == 3 {
		raw, _ := base64.RawURLEncoding.DecodeString(parts[1])
		_ = json.Unmarshal(raw, &claims) // what is not told stays empty
	}
	has := doctor.Fine(fmt.Sprintf("the managed identity has a token for %s: aud %s, iss %s, object id %s (bound_service_principal_ids)", c.Auth.AzureResource, claims.Aud, claims.Iss, claims.OID))
	if c.Auth.Method != config.AuthAzure {
		return has
	}
	e.Tell(has)
	if c.Auth.AzureResourceID == "" {
		return doctor.Advise("the app's resource id is not known", "roles with bound_subscription_ids or bound_resource_groups refuse the login", "set THAW_AZURE_RESOURCE_ID")
	}
	return doctor.Fine("the login says that this is " + c.Auth.AzureResourceID)
}

// identified is the platform of an app that has an identity.
func identified(cfg config.Config) (platform, error) {
	p, err := newPlatform(cfg, slog.New(slog.DiscardHandler))
	if err == nil && p.credential == nil {
		err = azure.ErrNoIdentity
	}
	return p, err
}

// wantsBlob says why there is no blob to look at.
func wantsBlob(e *doctor.Exam) string {
	if !strings.HasPrefix(e.Config.Warm.Dump, "https://") {
		return "THAW_DUMP is not in Blob storage"
	}
	return ""
}

// blobCheck reads the backup's beginning; that there is none yet is fine.
func blobCheck(ctx context.Context, e *doctor.Exam) doctor.Finding {
	p, err := identified(e.Config)
	if err == nil {
		at := strings.TrimPrefix(e.Config.Warm.Dump, "https://")
		parts := strings.SplitN(at, "/", 3) // config made sure of three
		var r io.ReadCloser
		if r, err = p.blobs("https://"+parts[0]+"/"+parts[1]).Read(ctx, parts[2]); err == nil {
			r.Close()
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return doctor.Fault(err.Error(), "backups of the shared cache are neither written nor restored", "see THAW_DUMP, and the identity's roles at the storage account")
	}
	return doctor.Fine("the identity reads THAW_DUMP's container")
}
