package lambdaapi

import "testing"

// StartForTest starts an environment that must initialise, closes it at the
// test's end and fails the test on any violation of the protocol.
func StartForTest(t testing.TB, cfg Config) *Environment {
	t.Helper()
	e, err := Start(t.Context(), cfg)
	if e != nil {
		t.Cleanup(func() {
			e.Close()
			e.api.Check(t)
		})
	}
	if err != nil {
		t.Fatalf("start the environment: %v", err)
	}
	return e
}

// Check fails the test on what the extension did against the protocol.
func (a *API) Check(t testing.TB) {
	t.Helper()
	for _, v := range a.Violations() {
		t.Errorf("against the Extensions API: %s", v)
	}
}
