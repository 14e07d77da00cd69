package cache

import (
	"fmt"
	"net/http"
	"reflect"
	"testing"
)

func TestEntriesShareEqualHeadersAndNoOthers(t *testing.T) {
	t.Parallel()
	var s heads
	first := http.Header{"Content-Type": {"application/json"}, "Warning": {"a", "b"}}
	one := s.share(first)
	first.Set("Content-Type", "changed by its owner")
	if two := s.share(http.Header{"Warning": {"a", "b"}, "Content-Type": {"application/json"}}); reflect.ValueOf(one).Pointer() != reflect.ValueOf(two).Pointer() {
		t.Error("equal headers are not shared")
	}
	for _, other := range []http.Header{
		{}, {"Content-Type": {"application/json"}}, {"Content-Type": {"application/json"}, "Warning": {"b", "a"}},
		{"Content-Type": {"application/json"}, "Warning": {"a", "b", ""}}, {"Content-Type": {"application/json"}, "X-Vault-Namespace": {"a", "b"}},
	} {
		if got := s.share(other); !reflect.DeepEqual(got, other) {
			t.Errorf("share(%v) = %v", other, got)
		}
	}
	for i := range 100 { // more than are kept
		h := http.Header{"X": {fmt.Sprint(i)}}
		if got := s.share(h); !reflect.DeepEqual(got, h) {
			t.Errorf("share(%v) = %v", h, got)
		}
	}
}
