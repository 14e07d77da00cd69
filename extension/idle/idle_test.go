package idle

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackOnceAfterABurst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var freed []time.Duration
		began := time.Now()
		w := &watch{ctx: ctx, pause: Pause, collects: 2}
		w.free = func() {
			freed = append(freed, time.Since(began))
			w.collected() // it collects
			w.collected()
		}
		for range 20 { // 2s of work
			w.collected()
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(freed) != 1 || freed[0] < 2*time.Second || freed[0] > 2*time.Second+2*Pause {
			t.Errorf("freed after %v, want once, shortly after the work's end at 2s", freed)
		}
		w.collected()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(freed) != 2 {
			t.Errorf("freed after %v, want once more after more work", freed)
		}
		w.collected()
		cancel()
		time.Sleep(time.Hour)
		synctest.Wait()
		if len(freed) != 2 {
			t.Error("freed after the end")
		}
	})
}

// A process that works on, with a collection now and then, spends half a percent of its
// time at most on giving memory back, however large its heap is.
func TestALargeHeapIsLeftAloneForLong(t *testing.T) {
	t.Parallel()
	for _, takes := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 200 * time.Millisecond, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			var times atomic.Int64
			w := &watch{ctx: ctx, pause: Pause, collects: 2}
			w.free = func() {
				times.Add(1)
				time.Sleep(takes)
				w.collected()
				w.collected()
			}
			const long = time.Hour
			for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(time.Second) {
				w.collected()
			}
			cancel()
			time.Sleep(time.Minute) // one that runs ends
			synctest.Wait()
			most := long / (rest * takes)
			if n := time.Duration(times.Load()); n > most+1 || n < min(most, long/time.Second)-most/4-1 {
				t.Errorf("a heap that takes %v was collected %d times in %v, want about %d", takes, times.Load(), long, min(most, long/time.Second))
			}
		})
	}
}

func TestATimerThatComesLateFreesNothingYet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var freed atomic.Int64
		w := &watch{ctx: t.Context(), pause: Pause, free: func() { freed.Add(1) }}
		w.look(0, time.Now().Add(-time.Second)) // thawed
		if freed.Load() != 0 {
			t.Error("freed at a thaw")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := freed.Load(); n != 1 {
			t.Errorf("freed %d times after the pause that followed, want once", n)
		}
	})
}

func TestCollectionsAreNoticed(t *testing.T) {
	t.Parallel()
	freed := make(chan struct{})
	w := &watch{ctx: t.Context(), pause: time.Millisecond, free: sync.OnceFunc(func() { close(freed) })}
	w.await()
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case <-freed:
			return
		case <-deadline:
			t.Fatal("collections went by unnoticed")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
