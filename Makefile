# The whole interface of the repository. CONTRIBUTING.md says more.
# Without git (an unpacked release, sam build) the version is the newest of CHANGELOG.md.
VERSION := $(or $(shell git describe --tags --always --dirty 2>/dev/null || sed -n 's/^\#\# \[\(v[^]]*\)\].*/\1/p' CHANGELOG.md | head -n 1),dev)
# Nothing here speaks HTTP/2: a twentieth of the binary.
BUILD   := CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags nethttpomithttp2 -ldflags "-s -w -X main.version=$(VERSION)"
# The layer's binary leaves out the warm-up, a twenty-fifth, which each cold start would load.
BUILD_LAYER := $(BUILD:http2=http2,layer)
LINUX   := GOFLAGS= GOOS=linux GOAMD64=v1 GOARM64=v8.0
ARCHS   := amd64 arm64
DIST    := dist
PACK    := go run ./layer -version $(VERSION) -sbom tests/sbom/go.mod
TOOL    := go tool -modfile=tests/tools/go.mod

.PHONY: build build-linux test race lint vuln fuzz bench demo pictures layer release vault clean build-LayerArm64 build-LayerAmd64 build-DemoFunction build-WarmupFunction

build: ## dist/thaw, dist/warmup, dist/thaw-azure and dist/thaw-dev, static
	$(BUILD) -o dist/thaw ./extension
	$(BUILD) -o dist/warmup ./functions/warmup/lambda
	$(BUILD) -o dist/thaw-azure ./extension/azurefn/thaw-azure
	$(BUILD) -o dist/thaw-dev ./tests/dev

test: build ## everything, against real components
	go run ./tests/harness/fetch vault memcached emulator python node
	go test -timeout 15m -p 2 -parallel 4 ./...
	cd tests/compat/goclient && go test -timeout 5m ./...
	cd tests/bench/report && go test ./...

race: ## what needs no real component, under the race detector
	go test -race -short -timeout 15m ./extension/... ./functions/... ./tests/fakes/...

lint: ## gofmt, go vet, staticcheck; lists the functions that are hardest to follow
	@bad=$$(gofmt -l extension functions layer tests examples); [ -z "$$bad" ] || { echo "not gofmt-ed: $$bad"; exit 1; }
	go vet ./... && $(TOOL) staticcheck -checks inherit,ST1020,ST1021,ST1022 ./...
	cd tests/compat/goclient && go vet ./...
	cd tests/bench/report && go vet ./...
	@echo "The hardest functions by gocognit:" && $(TOOL) gocognit -top 10 -ignore _test extension functions layer

vuln: ## govulncheck; says so where no database can be reached
	@tests/tools/vuln.sh

fuzz: ## every fuzz target for a minute
	.ci/fuzz

bench: build vault ## medians of paired runs, as a table
	go run ./tests/bench

pictures: ## docs/pictures/*.svg from their sources, by the pinned d2
	tests/pictures/render.sh

demo: build ## a function that freezes, a secret that rotates, an origin that dies, cold starts that share a cache
	go run ./tests/demo

build-linux: ## dist/linux-{amd64,arm64}/: thaw, the layer's without the warm-up, both functions and thaw-azure
	@set -e; for arch in $(ARCHS); do for p in thaw=extension warmup=functions/warmup/lambda demo=functions/demo/lambda thaw-azure=extension/azurefn/thaw-azure; do \
	  $(LINUX) GOARCH=$$arch $(BUILD) -o $(DIST)/linux-$$arch/$${p%%=*} ./$${p#*=}; done; \
	  $(LINUX) GOARCH=$$arch $(BUILD_LAYER) -o $(DIST)/linux-$$arch/thaw-layer ./extension; done

layer: build-linux ## dist/thaw-{layer,warmup,demo,azure}-{amd64,arm64}.zip, their checksums and lists of modules
	@$(PACK) $(foreach a,$(ARCHS),$(DIST)/thaw-layer-$(a).zip $(DIST)/linux-$(a)/thaw-layer)
	@$(PACK) -entry bootstrap $(foreach a,$(ARCHS),$(foreach f,warmup demo,$(DIST)/thaw-$(f)-$(a).zip $(DIST)/linux-$(a)/$(f)))
	@$(PACK) -entry thaw-azure $(foreach a,$(ARCHS),$(DIST)/thaw-azure-$(a).zip $(DIST)/linux-$(a)/thaw-azure)

release: ## VERSION=v1.2.3: checks, builds dist/release and tags; DRY_RUN=1 only shows what it would do
	@go run ./layer/release -version '$(VERSION)' $(if $(DRY_RUN),-dry-run)

# What `sam build` runs, by the logical ids of template.yaml, with ARTIFACTS_DIR:
# https://docs.aws.amazon.com/serverless-application-model/latest/developerguide/building-custom-runtimes.html
sam-function = set -e; for arch in $(ARCHS); do $(LINUX) GOARCH=$$arch $(BUILD) -o "$(ARTIFACTS_DIR)/bootstrap-$$arch" $(1); done; \
	install -m 0755 functions/bootstrap.sh "$(ARTIFACTS_DIR)/bootstrap"

build-LayerArm64 build-LayerAmd64: build-Layer%:
	$(LINUX) GOARCH=$(if $(filter Arm64,$*),arm64,amd64) $(BUILD_LAYER) -o "$(ARTIFACTS_DIR)/extensions/thaw" ./extension

build-DemoFunction:
	$(call sam-function,./functions/demo/lambda)

build-WarmupFunction:
	$(call sam-function,./functions/warmup/lambda)

vault: ## the real Vault in tests/.cache, built once; minutes of two cores
	go run ./tests/harness/fetch vault

clean: ## what make made, except Vault and the clients in tests/.cache
	rm -rf dist
