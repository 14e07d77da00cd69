package harness

import "testing"

func TestAPortIsGivenOutOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if !reserve(dir, portFirst) || !reserve(dir, portFirst+1) {
		t.Fatal("a port that nobody has cannot be reserved")
	}
	if reserve(dir, portFirst) {
		t.Error("a port was given out twice")
	}
	if reserve(dir+"/none", portFirst) {
		t.Error("reserved without a lock")
	}
}
