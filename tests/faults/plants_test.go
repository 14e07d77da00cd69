package faults

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var (
	allFlag   = flag.Bool("faults.plants", false, "look for every planted bug, not one for each promise")
	childFlag = flag.Int("faults.plantops", 200_000, "`operations` in which a planted bug has to be found")
)

// repository is the repository, seen from here.
var repository = filepath.Join("..", "..")

// plant is a bug that breaks a promise: texts of the product and what stands in
// their place. The product itself has no hooks for it: the bug is built with
// -overlay.
type plant struct {
	name, promise, what string
	by, test            string // the world that finds it, where that is not this one: a directory and its test
	changes             []change
}

type change struct{ file, from, to string }

var errPlant = errors.New("not a plant: want a promise and a sentence, perhaps \"by DIRECTORY TEST\", then blocks of \"in FILE\", <<<<, text, ====, text, >>>>")

// readPlant reads a plant's file.
func readPlant(name, text string) (plant, error) {
	first, rest, _ := strings.Cut(text, "\n")
	p := plant{name: name}
	var ok bool
	if p.promise, p.what, ok = strings.Cut(first, " "); !ok || len(p.promise) != 2 || p.promise[0] != 'G' {
		return plant{}, errPlant
	}
	if by, ok := strings.CutPrefix(rest, "by "); ok {
		by, rest, _ = strings.Cut(by, "\n")
		p.by, p.test, _ = strings.Cut(by, " ")
	}
	for rest = strings.TrimLeft(rest, "\n"); rest != ""; rest = strings.TrimLeft(rest, "\n") {
		var c change
		var ok1, ok2, ok3 bool
		c.file, rest, ok1 = strings.Cut(strings.TrimPrefix(rest, "in "), "\n<<<<\n")
		c.from, rest, ok2 = strings.Cut(rest, "\n====\n")
		c.to, rest, ok3 = strings.Cut(rest, "\n>>>>\n")
		if !ok1 || !ok2 || !ok3 || c.from == "" {
			return plant{}, errPlant
		}
		p.changes = append(p.changes, c)
	}
	if len(p.changes) == 0 {
		return plant{}, errPlant
	}
	return p, nil
}

// overlay makes the product with the bug and returns the file for -overlay.
func (p plant) overlay(dir string) (string, error) {
	texts := map[string]string{}
	for _, c := range p.changes {
		path, err := filepath.Abs(filepath.Join(repository, c.file))
		if err != nil {
			return "", err
		}
		if _, ok := texts[path]; !ok {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", fmt.Errorf("plant %s: %w", p.name, err)
			}
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], c.from); n != 1 {
			return "", fmt.Errorf("plant %s: %s has this text %d times, want once; write the plant anew:\n%s", p.name, c.file, n, c.from)
		}
		texts[path] = strings.Replace(texts[path], c.from, c.to, 1)
	}
	replace := map[string]string{}
	for path, text := range texts {
		own := filepath.Join(dir, fmt.Sprintf("%d-%s", len(replace), filepath.Base(path)))
		if err := os.WriteFile(own, []byte(text), 0o600); err != nil {
			return "", err
		}
		replace[path] = own
	}
	list, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, list, 0o600)
}

func plants(t *testing.T) []plant {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("plants", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no plants: %v", err)
	}
	var all []plant
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		p, err := readPlant(strings.TrimSuffix(filepath.Base(f), ".txt"), string(text))
		if err != nil {
			t.Fatalf("%s: %v", f, err)
		}
		all = append(all, p)
	}
	return all
}

// TestEveryPlantStillApplies keeps the plants in step with the product.
func TestEveryPlantStillApplies(t *testing.T) {
	promises := map[string]bool{}
	for _, p := range plants(t) {
		promises[p.promise] = true
		if _, err := p.overlay(t.TempDir()); err != nil {
			t.Error(err)
		}
	}
	for n := '1'; n <= '7'; n++ {
		if !promises["G"+string(n)] {
			t.Errorf("no plant breaks G%c", n)
		}
	}
}

// TestPlantedBugsAreFound builds the simulator with each bug in the product and
// has it find the promise that the bug breaks.
func TestPlantedBugsAreFound(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the product once for each bug")
	}
	seen := map[string]bool{}
	for _, p := range plants(t) {
		if !*allFlag && seen[p.promise] {
			continue
		}
		seen[p.promise] = true
		t.Run(p.name, func(t *testing.T) {
			list, err := p.overlay(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay="+list, ".", "-run", "^TestPromisesHoldThroughFaults$",
				fmt.Sprint("-faults.ops=", *childFlag), "-faults.shrink=0")
			if p.by != "" {
				cmd = exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay="+list, ".", "-run", "^"+p.test+"$")
				cmd.Dir = filepath.Join(repository, p.by)
				if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "--- FAIL: "+p.test) {
					t.Errorf("%s (%s) went unnoticed by %s: %v\n%.2000s", p.what, p.promise, p.test, err, out)
				}
				return
			}
			out, err := cmd.CombinedOutput()
			var failed *exec.ExitError
			switch {
			case err == nil:
				t.Errorf("%s (%s) went unnoticed in %d operations", p.what, p.promise, *childFlag)
			case !errors.As(err, &failed) || !strings.Contains(string(out), " broke:"):
				t.Errorf("the simulator did not run: %v\n%s", err, out)
			case !strings.Contains(string(out), p.promise+": "):
				t.Errorf("%s (%s) was found as something else:\n%.2000s", p.what, p.promise, out)
			}
			line, _, _ := strings.Cut(string(out), " operations broke:")
			t.Log(p.what, "was found:", strings.TrimSpace(line[strings.LastIndexByte(line, '\n')+1:]))
		})
	}
}
