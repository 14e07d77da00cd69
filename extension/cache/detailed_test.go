package cache

import (
	"fmt"
	"testing"
	"time"
)

func FuzzHeads(f *testing.F) {
	f.Add([]byte(`{"data":{"keys":["a"],"key_info":{"a":{"current_version":1,"custom_metadata":null,"versions":{"1":{"created_time":"t","deletion_time":"","destroyed":false}}}}}}`))
	f.Add([]byte(`{"data":{"key_info":{"a":{"current_version":-1e9}}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		_, heads, ok := Heads(body)
		if !ok && heads != nil {
			t.Error("heads of what is no answer")
		}
		for name, h := range heads {
			if h.version == "" || h.created == "" || h.custom == "" {
				t.Errorf("%s: %+v", name, h)
			}
			_ = h.absent(time.Now())
		}
	})
}

// A listing verifies a secret only if it tells all that an answer is made of, and
// all of it is the same.
func TestAHeadTellsAllOrNothing(t *testing.T) {
	t.Parallel()
	body := []byte(`{"data":{"data":{"k":"v"},"metadata":{"version":2,"created_time":"c2","deletion_time":"","destroyed":false,"custom_metadata":{"o":"x"}}}}`)
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339Nano)
	for name, c := range map[string]struct {
		info string
		want bool
	}{
		"the same":              {`{"current_version":2,"custom_metadata":{"o": "x"},"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, true},
		"another version":       {`{"current_version":3,"custom_metadata":{"o":"x"},"versions":{"3":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
		"created again":         {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c9","deletion_time":"","destroyed":false}}}`, false},
		"custom metadata":       {`{"current_version":2,"custom_metadata":{"o":"y"},"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
		"no custom metadata":    {`{"current_version":2,"custom_metadata":null,"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
		"deleted":               {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","deletion_time":"2026-01-01T00:00:00Z","destroyed":false}}}`, false},
		"to be deleted":         {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","deletion_time":"` + future + `","destroyed":false}}}`, false},
		"destroyed":             {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":true}}}`, false},
		"without custom":        {`{"current_version":2,"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
		"without created":       {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"deletion_time":"","destroyed":false}}}`, false},
		"without deletion":      {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","destroyed":false}}}`, false},
		"without destroyed":     {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","deletion_time":""}}}`, false},
		"without the version":   {`{"current_version":2,"custom_metadata":{"o":"x"},"versions":{"1":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
		"without which is last": {`{"custom_metadata":{"o":"x"},"versions":{"2":{"created_time":"c2","deletion_time":"","destroyed":false}}}`, false},
	} {
		_, heads, ok := Heads([]byte(fmt.Sprintf(`{"data":{"keys":["a"],"key_info":{"a":%s}}}`, c.info)))
		if got := heads["a"].Matches(Data, 200, body, time.Now()); !ok || got != c.want {
			t.Errorf("%s: %v, %v", name, got, ok)
		}
	}
	if _, heads, ok := Heads([]byte(`{"data":{"keys":["a"]}}`)); ok || heads["a"].Matches(Data, 200, body, time.Now()) {
		t.Error("a list without metadata verifies")
	}
}
