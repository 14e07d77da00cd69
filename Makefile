# The whole interface of the repository. CONTRIBUTING.md says more.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
BUILD   := CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)"
TOOL    := go tool -modfile=tests/tools/go.mod

.PHONY: build test race lint vuln bench demo layer vault clean

build: ## dist/thaw and dist/warmup, static
	$(BUILD) -o dist/thaw ./extension
	$(BUILD) -o dist/warmup ./functions/warmup/lambda

test: build ## everything, against real components
	go run ./tests/harness/fetch vault memcached hvac node
	go test -timeout 15m -p 2 -parallel 4 ./...
	cd tests/compat/goclient && go test -timeout 5m ./...

race: ## what needs no real component, under the race detector
	go test -race -short -timeout 15m ./extension/... ./functions/... ./tests/fakes/...

lint: ## gofmt, go vet, staticcheck
	@bad=$$(gofmt -l extension functions layer tests); [ -z "$$bad" ] || { echo "not gofmt-ed: $$bad"; exit 1; }
	go vet ./... && $(TOOL) staticcheck ./...
	cd tests/compat/goclient && go vet ./...

vuln: ## govulncheck; says so where no database can be reached
	@tests/tools/vuln.sh

bench: build vault ## medians of paired runs, as a table
	go run ./tests/bench

demo: build ## a function that freezes, a secret that rotates, an origin that dies, cold starts that share a cache
	go run ./tests/demo

layer: ## dist/thaw-layer-{amd64,arm64}.zip and their checksums
	for arch in amd64 arm64; do GOOS=linux GOARCH=$$arch $(BUILD) -o dist/linux-$$arch/thaw ./extension || exit 1; done
	cd dist && go run ../layer thaw-layer-amd64.zip linux-amd64/thaw thaw-layer-arm64.zip linux-arm64/thaw

vault: ## the real Vault in tests/.cache, built once; minutes of two cores
	go run ./tests/harness/fetch vault

clean: ## what make made, except Vault and the clients in tests/.cache
	rm -rf dist
