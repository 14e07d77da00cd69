package proxy

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// thrifty returns a connection with a slack of 1s, and its other end.
func thrifty(t *testing.T) (near, far net.Conn) {
	t.Helper()
	a, far := net.Pipe()
	r := newRoom(1, 0)
	r.takePlace(nil)
	near = newCallerConn(a, r, time.Second)
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func TestG7ReadDeadlinesEndReadsWhenTheyShould(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(net.Conn) // the Read
		during func(net.Conn) // 2s after its begin
		want   time.Duration  // its end
	}{
		"set before":           {before: func(c net.Conn) { c.SetReadDeadline(time.Now().Add(5 * time.Second)) }, want: 5 * time.Second},
		"by SetDeadline":       {before: func(c net.Conn) { c.SetDeadline(time.Now().Add(5 * time.Second)) }, want: 5 * time.Second},
		"set while reading":    {during: func(c net.Conn) { c.SetReadDeadline(time.Now().Add(time.Second)) }, want: 3 * time.Second},
		"moved while reading":  {before: func(c net.Conn) { c.SetReadDeadline(time.Now().Add(5 * time.Second)) }, during: func(c net.Conn) { c.SetReadDeadline(time.Now().Add(5 * time.Second)) }, want: 7 * time.Second},
		"passed while reading": {during: func(c net.Conn) { c.SetReadDeadline(time.Unix(1, 0)) }, want: 2 * time.Second},
		"passed before":        {before: func(c net.Conn) { c.SetReadDeadline(time.Unix(1, 0)) }, want: 0},
		"passed a moment ago":  {before: func(c net.Conn) { c.SetReadDeadline(time.Now().Add(-time.Millisecond)) }, want: 0},
		"the last of several": {before: func(c net.Conn) {
			c.SetReadDeadline(time.Now().Add(time.Second))
			c.SetReadDeadline(time.Now().Add(4 * time.Second))
		}, want: 4 * time.Second},
		"lifted, then set anew": {before: func(c net.Conn) { c.SetReadDeadline(time.Unix(1, 0)); c.SetReadDeadline(time.Time{}) }, during: func(c net.Conn) { c.SetReadDeadline(time.Now()) }, want: 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				near, _ := thrifty(t)
				began := time.Now()
				if c.before != nil {
					c.before(near)
				}
				if c.during != nil {
					go func() {
						time.Sleep(2 * time.Second)
						c.during(near)
					}()
				}
				_, err := near.Read(make([]byte, 1))
				if took := time.Since(began); took != c.want || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("ended after %v with %v, want %v", took, err, c.want)
				}
				synctest.Wait()
			})
		})
	}
}

func TestReadsWithoutADeadlineWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := thrifty(t)
		near.SetReadDeadline(time.Now().Add(time.Second))
		near.Read(make([]byte, 1)) // sets it, and outlives it
		near.SetReadDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			far.Write([]byte("x"))
		}()
		if n, err := near.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Errorf("read %d bytes, %v", n, err)
		}
	})
}

func TestG7WriteDeadlinesComeNoLaterAndLittleEarlier(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		near, far := thrifty(t)
		// As net/http does it: a deadline for each answer, none in between.
		for range 10 {
			near.SetWriteDeadline(time.Now().Add(10 * time.Second))
			go far.Read(make([]byte, 1))
			if _, err := near.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			near.SetWriteDeadline(time.Time{})
			time.Sleep(300 * time.Millisecond)
		}
		near.SetWriteDeadline(time.Now().Add(10 * time.Second))
		began := time.Now()
		_, err := near.Write([]byte("x")) // nobody reads
		if took := time.Since(began); took > 10*time.Second || took < 9*time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("ended after %v with %v, want 9s to 10s", took, err)
		}
		near.SetWriteDeadline(time.Now().Add(10 * time.Second))
		go far.Read(make([]byte, 1))
		if _, err := near.Write([]byte("x")); err != nil {
			t.Errorf("a new deadline after one that had passed: %v", err)
		}
		near.SetWriteDeadline(time.Time{})
		go func() {
			time.Sleep(time.Hour)
			far.Read(make([]byte, 1))
		}()
		if _, err := near.Write([]byte("x")); err != nil {
			t.Errorf("without a deadline: %v", err)
		}
	})
}
