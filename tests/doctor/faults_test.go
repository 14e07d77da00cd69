package doctor

import (
	"slices"
	"strings"
	"testing"
)

// fault is one thing that is wrong at a site that is well otherwise.
type fault struct {
	name  string
	plant func(s *site) (env, args []string)
	check string // that finds it
	level string // empty: problem
	what  string // a part of what is found
	fix   string // a part of the remedy
	exit  int
}

// faults is the list, in the order of the checks.
func faults() []fault {
	return slices.Concat(configurationFaults(), networkFaults(), tlsFaults(), nodeFaults(), loginFaults(), awsFaults(), pathFaults(), costFaults(), sharedFaults(), missedFaults(), localFaults())
}

func TestFindsEachPlantedFaultAndNamesTheRemedy(t *testing.T) {
	t.Parallel()
	if n := len(faults()); n < 20 {
		t.Fatalf("only %d faults", n)
	}
	for _, f := range faults() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			env, args := f.plant(s)
			r := s.examine(env, args...)
			if f.level == "" {
				f.level = "problem"
			}
			found := slices.ContainsFunc(r.Findings, func(g finding) bool {
				return g.Check == f.check && g.Level == f.level && strings.Contains(g.What, f.what) && strings.Contains(g.Fix, f.fix)
			})
			if !found {
				t.Errorf("no %s of check %s with %q and the remedy %q in\n%s", f.level, f.check, f.what, f.fix, r.text)
			}
			if r.exit != f.exit {
				t.Errorf("exit status %d, want %d", r.exit, f.exit)
			}
			if r.Healthy != (f.exit == 0) || f.level == "problem" && r.Problems == 0 || f.level == "advice" && r.Advice == 0 {
				t.Errorf("healthy %v, %d problems, %d pieces of advice", r.Healthy, r.Problems, r.Advice)
			}
			// What comes before the fault is well: the first problem is the one to mend.
			for _, g := range r.Findings {
				if g.Level == "problem" {
					if f.level == "problem" && g.Check != f.check {
						t.Errorf("the first problem is another: %+v", g)
					}
					break
				}
			}
		})
	}
}

func configurationFaults() []fault {
	return []fault{
		{name: "a misspelt setting", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_STALE_IF_EROR=1h"), nil
		}, check: "configuration", what: "THAW_STALE_IF_EROR", fix: "correct its name", exit: 2},
		{name: "no address", plant: func(s *site) ([]string, []string) {
			return []string{"VAULT_TOKEN=" + secret()}, nil
		}, check: "configuration", what: "address is missing", fix: "VLE_VAULT_ADDR", exit: 2},
		{name: "memcached without a key", plant: func(s *site) ([]string, []string) {
			return s.approle("CACHE_ENABLE=true", "THAW_MEMCACHED=127.0.0.1:1"), nil
		}, check: "configuration", what: "needs a key", fix: "THAW_CACHE_KEY", exit: 2},
		{name: "an address that is thaw's own", plant: func(s *site) ([]string, []string) {
			return []string{"VAULT_ADDR=http://127.0.0.1:8200"}, nil
		}, check: "self-loop", what: "points back at thaw's own listener", fix: "VLE_VAULT_ADDR", exit: 2},
		{name: "a thaw where Vault should be", plant: func(s *site) ([]string, []string) {
			return []string{"VAULT_ADDR=" + s.proxy()}, nil
		}, check: "self-loop", what: "is itself a thaw", fix: "Vault's own address", exit: 1},
	}
}

func pathFaults() []fault {
	return []fault{
		{name: "a policy without the secret", plant: func(s *site) ([]string, []string) {
			s.put("secret", "elsewhere-"+s.name)
			return s.approle("VAULT_SECRET_PATH=secret/data/elsewhere-" + s.name), nil
		}, check: "policy", what: "may not read secret/data/elsewhere-", fix: `capabilities = ["read"]`, exit: 1},
		{name: "a policy without sys/capabilities-self", plant: func(s *site) ([]string, []string) {
			role := s.approle()
			s.root("auth/approle/role/"+s.name, map[string]any{"token_policies": []string{s.name}, "token_type": "batch", "token_no_default_policy": true})
			return role, nil
		}, check: "policy", what: "sys/capabilities-self", fix: `path "sys/capabilities-self" { capabilities = ["update"] }`, exit: 1},
		{name: "a warm-up that may not list", plant: func(s *site) ([]string, []string) {
			s.policy(`path "secret/data/` + s.name + `/*" { capabilities = ["read"] }`)
			return s.approle("THAW_WARM_PATHS=secret/" + s.name + "/"), nil
		}, check: "policy", what: "may not list secret/metadata/", fix: `capabilities = ["list"]`, exit: 1},
		{name: "a warm-up that may list and not read", plant: func(s *site) ([]string, []string) {
			s.policy(`path "secret/metadata/` + s.name + `/*" { capabilities = ["list"] }`)
			return s.approle("THAW_WARM_PATHS=secret/" + s.name + "/"), nil
		}, check: "policy", what: "and not read secret/data/", fix: `capabilities = ["read"]`, exit: 1},
		{name: "a warm-up that may read some secrets only", plant: func(s *site) ([]string, []string) {
			s.put("secret", s.name+"/other")
			s.policy(`path "secret/metadata/` + s.name + `/*" { capabilities = ["list"] }
path "secret/data/` + s.name + `/app" { capabilities = ["read"] }`)
			return s.approle("THAW_WARM_PATHS=secret/" + s.name + "/"), nil
		}, check: "policy", level: "advice", what: "of 2 secrets in", fix: "narrower prefix", exit: 0},
		{name: "a KV v2 path without data", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_PREFETCH=secret/" + s.name + "/app"), nil
		}, check: "kv", what: "lacks /data/", fix: "write secret/data/", exit: 1},
		{name: "a KV v1 path with data", plant: func(s *site) ([]string, []string) {
			s.policy(`path "kv/*" { capabilities = ["read"] }`)
			return s.approle(), []string{"kv/data/" + s.name + "/app"}
		}, check: "kv", what: "have no /data/", fix: "write kv/", exit: 1},
		{name: "a KV v2 path with data in capitals", plant: func(s *site) ([]string, []string) {
			s.policy(`path "secret/*" { capabilities = ["read"] }`)
			return s.approle(), []string{"secret/Data/" + s.name + "/app"}
		}, check: "kv", what: "lacks /data/", fix: "write secret/data/fn", exit: 1},
		{name: "a path with an empty part", plant: func(s *site) ([]string, []string) {
			s.policy(`path "secret/*" { capabilities = ["read"] }`)
			return s.approle(), []string{"secret//data/" + s.name + "/app"}
		}, check: "kv", what: "an empty part", fix: "write secret/data/fn", exit: 1},
		{name: "a secret that is not there", plant: func(s *site) ([]string, []string) {
			return s.approle("VAULT_SECRET_PATH=secret/data/" + s.name + "/none"), nil
		}, check: "kv", what: "there is no secret at", fix: "vault kv put", exit: 1},
		{name: "a mount that is not there", plant: func(s *site) ([]string, []string) {
			s.policy(`path "*" { capabilities = ["read"] }`)
			return s.approle(), []string{"nowhere/data/app"}
		}, check: "kv", what: "there is no mount", fix: "VAULT_NAMESPACE", exit: 1},
		{name: "KV versions mixed up", plant: func(s *site) ([]string, []string) {
			return s.approle("THAW_KV_MOUNTS=secret=1"), nil
		}, check: "kv", what: "THAW_KV_MOUNTS says secret=1, and it is KV version 2", fix: "correct THAW_KV_MOUNTS", exit: 1},
	}
}
