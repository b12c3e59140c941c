# `make` prints this help. Everything the pipeline calls is a target here.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
BIN := bin
export CGO_ENABLED ?= 0
VERSION ?= $(shell git describe --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -s -w -X main.version=$(VERSION)
BINARIES := $(BIN)/farrier $(BIN)/farrier-coordinator $(BIN)/farrier-agent $(BIN)/farrier-ramdisk

.PHONY: help
help: ## this text
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: build
build: ## the four binaries, in bin/
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/farrier ./cmd/farrier
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/farrier-coordinator ./coordinator
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/farrier-agent ./agent
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/farrier-ramdisk ./ramdisk-agent

.PHONY: demo
demo: build ## three coordinators, two rack agents, four software machines: enrolled, cleaned and deployed
	@exec $(BIN)/farrier demo --parent $$PPID

# -timeout is of each package: it ends a test that hangs. The scenarios come first: they wait for most of their minutes, in
# which the others are compiled. How long all of it took is printed at the end.
.PHONY: test
test: build ## unit tests with -race, layers, documents, scenarios with software machines
	@time CGO_ENABLED=1 FARRIER_BIN=$(CURDIR)/$(BIN) $(GO) test -race -timeout 15m ./test/scenario ./...

.PHONY: race
race: build ## the tests of a part again and again with -race: make race PKG=./agent/... COUNT=20
	CGO_ENABLED=1 FARRIER_BIN=$(CURDIR)/$(BIN) $(GO) test -race -count=$(or $(COUNT),5) -timeout 30m $(or $(PKG),./agent/... ./coordinator/... ./pkg/... ./ramdisk-agent/...)

.PHONY: check
check: ## format, vet, staticcheck, generated code fresh
	@bad=$$(git ls-files -co --exclude-standard '*.go' | xargs gofmt -l); if [ -n "$$bad" ]; then echo "gofmt these:"; echo "$$bad"; exit 1; fi
	$(GO) vet ./...
	$(GO) vet -tags e2e ./test/...
	$(GO) tool staticcheck ./...
	$(GO) mod verify >/dev/null
	@$(MAKE) --no-print-directory fresh

.PHONY: fresh
fresh: ## generated code is what the definitions give (needs Debian's protobuf-compiler: make setup)
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; api/generate.sh "$$tmp/gen" && diff -r "$$tmp/gen" api/gen && echo "api/gen is fresh"

.PHONY: generate
generate: ## api/gen from api/proto (needs Debian's protobuf-compiler: make setup)
	api/generate.sh

.PHONY: docs
docs: ## the generated parts of docs/
	$(GO) test ./coordinator/lifecycle -run TestDocument -update

.PHONY: e2e
e2e: setup build ## a machine under QEMU with real firmware, from power-on to a booted disk and back (Debian; root to install packages)
	$(GO) test -tags e2e -count=1 -timeout 20m -v ./test/e2e

.PHONY: bench
bench: bench-setup build ## figures beside their goals; ROW=n runs one, LONG=1 adds the long parts, PLAIN=1 has etcd without TLS
	$(GO) run ./test/bench $(if $(ROW),-row $(ROW)) $(if $(LONG),-long) $(if $(PLAIN),-plain)

.PHONY: bench-setup
bench-setup: ## Debian packages that bench measures beside (root)
	test/setup-bench.sh

.PHONY: setup
setup: ## Debian packages for check and e2e (root)
	test/setup.sh

.PHONY: clean
clean: ## what build made
	rm -rf $(BIN)
