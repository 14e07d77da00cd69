package warmup

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/thaw-project/thaw/extension/cache"
)

// Sealer seals for one audience. *envelope.Sealer is one.
type Sealer interface {
	Seal(aad []string, plaintext []byte) []byte
	Open(aad []string, sealed []byte) ([]byte, error)
}

// Place is where a backup is kept.
type Place interface {
	// Write replaces the backup called name by the content of a file.
	Write(ctx context.Context, name string, from *os.File, size int64, sum [sha256.Size]byte) error
	// Read opens it. An error that is os.ErrNotExist: there is none.
	Read(ctx context.Context, name string) (io.ReadCloser, error)
}

// Backup keeps sealed copies of the cache outside memcached: written every so
// often after a run, restored into a memcached that is empty as soon as the
// origin turns out to be away. Entries keep their age, so what is too old to be served stays so.
//
// # Format
//
//	thaw-backup-1\n
//	16 bytes  the backup's id, random
//	then for each part: 4 bytes length, big-endian, and the sealed part
//
// A part is JSON: a list of records, or of capabilities with their ends (Held), an
// object with the member Held. Its additional data is the audience, the id and the
// part's number, so parts of two backups cannot be mixed. Capabilities come first: an
// end that is missing is missing entries, no more. To programs from before there were
// capabilities in backups, such a part is a record without a time, which they leave
// out.
type Backup struct {
	Place Place
	Name  string        // of the one audience's backup; others get a suffix
	Every time.Duration // 0: none is written
}

const (
	backupMagic = "thaw-backup-1\n"
	backupID    = 16
	maxPart     = 64 << 20
)

// errAway says that a pass stopped because the origin does not answer.
var errAway = errors.New("the origin is away")

// name is where an audience's backup is.
func (b *Backup) name(l *leadership) string {
	if len(l.w.o.Audiences) == 1 {
		return b.Name
	}
	sum := sha256.Sum256([]byte(l.audience.Namespace + "\x00" + l.audience.Name))
	return b.Name + "-" + hex.EncodeToString(sum[:6])
}

// aad is the additional data of a part of an audience's backup.
func (a *Audience) aad(id []byte, part int) []string {
	return []string{"backup", a.Namespace, a.Name, string(id), strconv.Itoa(part)}
}

// save writes a backup of an audience if it is due.
func (b *Backup) save(ctx context.Context, l *leadership) {
	w, state, now := l.w, &l.state, l.w.o.Now()
	if b == nil || b.Every <= 0 || state.Inventory.Chunks == 0 || recent(state.Dumped, now, b.Every) || !l.held() {
		return
	}
	n, err := b.write(ctx, l)
	if err != nil {
		w.o.Log.Warn("write the backup of the cache; it is tried again at the next run", "audience", l.audience.Name, "error", err)
		return
	}
	w.o.Log.Info("the cache is backed up", "audience", l.audience.Name, "entries", n)
	state.Dumped = now
	l.save(ctx, *state)
}

func (b *Backup) write(ctx context.Context, l *leadership) (entries int, err error) {
	a, inv := l.audience, l.state.Inventory
	f, err := os.CreateTemp("", "thaw-backup-") // 0600, and sealed besides
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	sum := sha256.New()
	buf := bufio.NewWriter(io.MultiWriter(f, sum))
	id := make([]byte, backupID)
	_, _ = rand.Read(id)
	_, _ = buf.WriteString(backupMagic + string(id))
	part := 0
	put := func(v any) error {
		text, err := json.Marshal(v)
		if err != nil {
			return err
		}
		sealed := a.Sealer.Seal(a.aad(id, part), text)
		_, _ = buf.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(sealed))), sealed...))
		part++
		return nil
	}
	for _, held := range a.Held(ctx) {
		if err := put([]map[string]Held{{"Held": held}}); err != nil {
			return 0, err
		}
	}
	for n := range inv.Chunks {
		var names []string
		if !a.State(ctx, chunkName(inv.Generation, n), &names) {
			return 0, errors.New("a part of the inventory is not in memcached")
		}
		for some := range slices.Chunk(names, batchRecords) {
			records := slices.Collect(maps.Values(a.Entries(ctx, keysAt(a.Namespace, some))))
			if len(records) == 0 {
				continue
			}
			if err := put(records); err != nil {
				return 0, err
			}
			entries += len(records)
		}
		if ctx.Err() != nil {
			return 0, context.Cause(ctx)
		}
	}
	written := buf.Flush() // the first error of all writes
	size, told := f.Seek(0, io.SeekCurrent)
	_, back := f.Seek(0, io.SeekStart)
	if err := errors.Join(written, told, back); err != nil {
		return 0, err
	}
	return entries, b.Place.Write(ctx, b.name(l), f, size, [sha256.Size]byte(sum.Sum(nil)))
}

// element is one of any part: of one with capabilities if Held is set, else a record.
type element struct {
	Held *Held
	cache.Record
}

// restore puts the backup into an empty tier while the origin is away. It
// reports whether nothing is left to try in this run.
func (b *Backup) restore(ctx context.Context, l *leadership) bool {
	w, state, now := l.w, &l.state, l.w.o.Now()
	if b == nil || !state.Full.IsZero() || recent(state.Restored, now, w.o.FullEvery) || !l.held() {
		return true
	}
	n, err := b.read(ctx, l)
	switch {
	case errors.Is(err, os.ErrNotExist):
		w.o.Log.Info("there is no backup to restore", "audience", l.audience.Name)
		return true
	case err != nil:
		w.o.Log.Warn("restore the backup of the cache; it is tried again", "audience", l.audience.Name, "entries", n, "error", err)
		return false
	}
	w.o.Log.Info("memcached was empty and the origin is away: the cache is restored from its backup", "audience", l.audience.Name, "entries", n)
	state.Restored = now
	l.save(ctx, *state)
	return true
}

func (b *Backup) read(ctx context.Context, l *leadership) (entries int, err error) {
	a := l.audience
	in, err := b.Place.Read(ctx, b.name(l))
	if err != nil {
		return 0, err
	}
	defer in.Close()
	err = readBackup(bufio.NewReader(in), a, func(part []element) bool {
		var records []cache.Record
		for _, e := range part {
			if e.Held == nil {
				records = append(records, e.Record)
			} else {
				a.PutHeld(ctx, *e.Held)
			}
		}
		a.Put(ctx, records)
		entries += len(records)
		return l.held() && ctx.Err() == nil
	})
	return entries, err
}

var errNotBackup = errors.New("it is not a backup of this audience, or its key is not configured any more")

// readBackup gives what is in each part of an audience's backup to put until that returns
// false.
// Nothing that is not exactly what was sealed is given.
func readBackup(in io.Reader, a *Audience, put func([]element) bool) error {
	head := make([]byte, len(backupMagic)+backupID)
	if _, err := io.ReadFull(in, head); err != nil || string(head[:len(backupMagic)]) != backupMagic {
		return errNotBackup
	}
	id := head[len(backupMagic):]
	for part := 0; ; part++ {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("part %d: %w", part, err)
		}
		size := binary.BigEndian.Uint32(length[:])
		if size > maxPart {
			return errNotBackup
		}
		// Not allocated on the length's word alone.
		sealed, err := io.ReadAll(io.LimitReader(in, int64(size)))
		if err != nil || len(sealed) != int(size) {
			return fmt.Errorf("part %d ends early", part)
		}
		text, err := a.Sealer.Open(a.aad(id, part), sealed)
		var elements []element
		if err != nil || json.Unmarshal(text, &elements) != nil {
			return errNotBackup
		}
		if !put(elements) {
			return errors.New("the time for it was over")
		}
	}
}
