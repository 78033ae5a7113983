# Outfeed's commands. `make help` lists them.
SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

UI    := controlplane/internal/web/ui
DIST  := controlplane/internal/web/dist/index.html
CACHE := .cache
LINT  := $(CACHE)/golangci-lint
SETUP := .ci/setup

# CGO is off, so that one binary runs on every distribution.
export CGO_ENABLED ?= 0

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: $(DIST) ## Build bin/outfeed-agent, bin/outfeed-controlplane and bin/outfeed
	go build -trimpath -buildvcs=auto -ldflags='-s -w' -o bin/ ./agent/cmd/outfeed-agent ./controlplane/cmd/outfeed-controlplane ./controlplane/cmd/outfeed

.PHONY: demo
demo: ## Run everything on this machine: PostgreSQL, control plane, a small plant, an agent, flows, insights
	@$(SETUP) demo
	@$(MAKE) --no-print-directory build bin/outfeed-demo
	@exec bin/outfeed-demo -bin bin

.PHONY: bin/outfeed-demo
bin/outfeed-demo:
	go build -trimpath -o bin/outfeed-demo ./installer/demo
	go build -trimpath -o bin/outfeed-demo-plant ./installer/demo/plant

.PHONY: test
test: $(DIST) ## Run the tests (under 10 minutes; starts what it needs)
	@$(SETUP) test
	go test -timeout 9m ./...
	cd $(UI) && npm test --silent

.PHONY: e2e
e2e: build ## Run the end-to-end tests on the real binaries
	@$(SETUP) e2e
	@go build -trimpath -o bin/outfeed-demo ./installer/demo && go build -trimpath -o bin/outfeed-demo-plant ./installer/demo/plant
	go test -tags e2e -count=1 -timeout 20m -v -skip '^TestFault' ./internal/e2e

# The packages whose tests of faults have a long form: those whose tests know the flag -long.
LONG = $(addprefix ./,$(sort $(dir $(shell grep -rl --include='*_test.go' 'flag\.Bool.*"long"' agent controlplane internal --exclude-dir=e2e))))

# E2E takes options for the system's tests, such as E2E='-kills 300 -seed 7'; PART=engine|system|packages runs one part.
PART ?= engine packages system
.PHONY: faults
faults: $(DIST) $(UI)/node_modules ## Run the tests of faults and the other long tests at length: hours (PART=engine|packages|system for one part)
	@$(SETUP) faults
	@for part in $(PART); do $(MAKE) --no-print-directory faults-$$part; done

.PHONY: faults-engine
faults-engine:
	@echo '== The engine: 10,000 random flows against PostgreSQL, 50 million rows joined with 5 million, colliding hashes'
	OUTFEED_ORACLE_FLOWS=10000 go test -count=1 -timeout 30m -v -run TestRandomFlowsAsPostgreSQL ./agent/internal/engine/sqloracle
	go test -count=1 -timeout 30m -v -run FiftyMillion ./agent -long
	go test -tags collide -count=1 -timeout 10m ./agent/internal/engine

.PHONY: faults-packages
faults-packages:
	@echo '== The parts: damaged files, full disks, hostile peers, lost keys and what else each package does to itself'
	go test -p 1 -count=1 -timeout 2h -v -skip FiftyMillion $(LONG) -long

.PHONY: faults-system
faults-system:
	@echo '== The system: the real programs, killed, cut off and filled up'
	go test -count=1 -timeout 3h -v -run '^TestFault' ./internal/e2e -long $(E2E)

.PHONY: race
race: $(DIST) ## Run the tests under the race detector
	@$(SETUP) test
	CGO_ENABLED=1 go test -race -timeout 30m ./...

.PHONY: lint
lint: $(LINT) $(DIST) ## Check the code: linters, formatting, generated files
	@$(SETUP) lint
	$(LINT) run ./...
	$(LINT) run --build-tags e2e ./internal/e2e
	GOOS=windows $(LINT) run ./agent/...
	cd $(UI) && npm run --silent lint
	@$(MAKE) --no-print-directory generate
	git diff --exit-code -- '*.pb.go' '*/schema.d.ts' docs/flows.md || { echo 'generated files are behind: run make generate and commit'; exit 1; }

# BENCH takes options, such as BENCH='-records 500000 -tag-time 10s -json'; BENCH=-help lists them.
.PHONY: bench
bench: ## Compare the whole path with DuckDB and a hand-written scanner, then, without -only, run the benchmarks beside the code
	-@$(SETUP) bench
	@go build -trimpath -o $(CACHE)/outfeed-bench ./internal/bench/cmd/bench
	@$(CACHE)/outfeed-bench $(BENCH)
	$(if $(findstring -only,$(BENCH)),,go test -run '^$$' -bench . -benchmem ./agent/... ./protocol/...)

.PHONY: generate
generate: $(UI)/node_modules ## Generate the code that is made from other files
	@$(SETUP) lint
	go build -o $(CACHE)/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	PATH=$(CURDIR)/$(CACHE):$$PATH protoc --go_out=. --go_opt=module=github.com/outfeed/outfeed protocol/wire/wire.proto
	cd $(UI) && npm run --silent api
	go run ./protocol/flowdef/flowdoc docs/flows.md

.PHONY: clean
clean: ## Remove what was built
	rm -rf bin dist $(CACHE) $(UI)/node_modules
	git clean -fdxq controlplane/internal/web/dist

$(UI)/node_modules: $(UI)/package-lock.json
	cd $(UI) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(DIST): $(UI)/node_modules $(shell find $(UI)/src $(UI)/index.html $(UI)/*.ts 2>/dev/null)
	cd $(UI) && npm run --silent build

# The linter has a module of its own, so that its dependencies are none of the product's.
$(LINT): .ci/tools/go.sum
	cd .ci/tools && go build -o $(CURDIR)/$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint
