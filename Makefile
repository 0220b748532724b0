# The commands of this repository. `make demo` and `make test` need Go, make and gcc, nothing else.

GO          ?= go
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := $(GO) run golang.org/x/vuln/cmd/govulncheck@v1.9.0 $(VULNFLAGS)
# Executions: in Go 1.26 a target may fail at the end of a duration (go.dev/issue/75804).
FUZZTIME    ?= 50000x
# Every folder with a go.mod: engine, and what go.work uses.
MODULES     := engine $(patsubst ./%,%,$(shell sed -n 's/^\t\(\.[^ ]*\)$$/\1/p' go.work))
# What check looks at besides this machine's own: other systems, and 32 bits, big-endian.
PLATFORMS   := linux/mips freebsd/amd64 openbsd/amd64 netbsd/amd64 illumos/amd64 darwin/arm64 windows/amd64
# The modules beside the root and engine have next to no code for single systems: these are enough.
FEWER       := linux/mips darwin/arm64 windows/amd64
# engine/ has Ergo's module path, so it is no part of the workspace.
ENTER       := cd $$m && { test $$m != engine || export GOWORK=off; }
# The packages of a module that have tests, those with few first: go test reports in this order.
TESTED      := $(GO) list -f '{{len .TestGoFiles}} {{len .XTestGoFiles}} {{.ImportPath}}' ./... | awk '$$1+$$2 { print $$1+$$2, $$3 }' | sort -n | cut -d' ' -f2
SHORT       ?= -short

.PHONY: help demo demo-acme test test-all test-386 check consumer tidy bench bench-short soak soak-short chaos chaos-short fuzz vuln testdata interop spire
help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# Runs a program in stages that are announced: with an empty cache the first two take a minute each.
define run
	@echo "make $@: downloading what it needs, as far as it is not there"
	@$(1) $(GO) list -deps $(2) >/dev/null
	@echo "make $@: compiling; with an empty cache this takes a minute or two"
	@$(1) $(GO) build -o /dev/null $(2)
	@echo "make $@: running; this takes $(3)"
	@$(1) $(GO) run $(2)
endef

demo: ## two actors talk over mutual TLS; a client without a valid certificate is refused; certificates are replaced
	$(call run,,./examples/mtls,two seconds)

demo-acme: ## a certificate is issued and renewed on one machine, in seconds, with the CA failing in between; then a wildcard, by a DNS record
	$(call run,cd tlstest/acmetest/e2e &&,./demo,15 seconds)

test: ## the tests of all modules, with the race detector; then what it would change, allocations
	@echo "The first run compiles everything for the race detector, which takes minutes. Each package has a line when its tests have passed."
	@for m in $(MODULES); do echo "test $$m"; ($(ENTER) && packages=$$($(TESTED)) && \
		{ test -z "$$packages" || $(GO) test -race $(SHORT) $$packages; }) || exit 1; done
	$(GO) test -run 'Alloc|NeverReads' ./certmanager ./meta
	cd engine && GOWORK=off $(GO) test -run Alloc .

test-all: ## the same with the tests that take long, those with other programs among them; then meta without the race detector
	@$(MAKE) test SHORT=
	$(GO) test -short -skip 'Alloc|NeverReads' ./meta

test-386: ## the tests of what users import but for those that take long, compiled for 32 bits, which most amd64 kernels also run
	@if GOARCH=386 $(GO) test -run '^$$' ./internal/sni >/dev/null 2>&1; \
		then GOARCH=386 $(GO) test $(SHORT) ./certmanager/... ./tlstest ./meta; \
		else echo "make $@: SKIPPED: this machine does not run 32-bit programs"; fi

# Other platforms are compiled without optimizations, which is faster: vet needs only the types.
check: ## formatting, vet for each platform, staticcheck, tidy modules
	@for t in $$(sed -n 's/^.PHONY://p' $(MAKEFILE_LIST)); do grep -q "^$$t:" $(MAKEFILE_LIST) || { echo "make $$t does nothing"; exit 1; }; done
	@test -z "$$(gofmt -l . | tee /dev/stderr)" || { echo "not formatted: run gofmt -w ."; exit 1; }
	@for m in $(MODULES); do echo "check $$m"; ($(ENTER) && \
		$(CURDIR)/.ci/tidy -diff && $(GO) vet ./... && $(STATICCHECK) ./... && \
		case $$m in .|engine) platforms="$(PLATFORMS)";; *) platforms="$(FEWER)";; esac && \
		for p in $$platforms; do GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) vet -gcflags='all=-N -l' ./... || { echo "on $$p"; exit 1; }; done) || exit 1; done

consumer: ## installs the modules as their users do, from a module proxy and into an empty folder
	cd internal/consumer && $(GO) run .

tidy: ## go mod tidy everywhere
	@for m in $(MODULES); do ($(ENTER) && $(CURDIR)/.ci/tidy) || exit 1; done

bench: ## servers side by side (25 minutes), then the benchmarks beside the code
	$(GO) run ./bench
	@for m in $(MODULES); do ($(ENTER) && $(GO) test -run '^$$' -bench . -benchmem ./...) || exit 1; done

bench-short: ## the servers side by side in two minutes, too rough to judge by: CI prints it
	$(GO) run ./bench -short

soak: ## half an hour of everything together, then 10,000 rotations of certificates and trust under load (about 40 minutes)
	cd tlstest/acmetest/e2e/soak && $(GO) test -timeout 1h -soak=30m -peers=2000
	ERGOTLS_SOAK=1 $(GO) test -race -run '^TestSoak$$' -v -timeout 3h ./certmanager

soak-short: ## a minute of everything together
	cd tlstest/acmetest/e2e/soak && $(GO) test -timeout 5m -soak=1m -peers=2000

chaos: ## breaks network, descriptors, disks, file events, clock, process and Redis, and prints what became of it (2 minutes)
	cd tlstest/acmetest/e2e/chaos && $(GO) test -race -timeout 15m -faults=all

chaos-short: ## the same with fewer repetitions (75 seconds)
	cd tlstest/acmetest/e2e/chaos && $(GO) test -race -timeout 10m -faults=short

fuzz: ## each fuzz target for FUZZTIME (default 50000x: 50,000 executions, under a minute for all)
	@grep -rno --include='*_test.go' '^func Fuzz[A-Za-z0-9]*' . | while IFS=: read -r file _ func; do \
		echo "fuzz $$file $${func#func }"; \
		test -n "$$(ls $$(dirname $$file)/testdata/fuzz/$${func#func })" || { echo "it has no corpus in testdata/fuzz"; exit 1; }; \
		(cd $$(dirname $$file) && $(GO) test -run '^$$' -fuzz "^$${func#func }\$$" -fuzztime $(FUZZTIME) .) || exit 1; done

vuln: ## known vulnerabilities that the code can reach; SKIPPED where their database is out of reach
	@if timeout 60 $(GOVULNCHECK) -version | grep 'DB updated'; then \
		for m in $(MODULES); do echo "govulncheck $$m"; ($(ENTER) && $(GOVULNCHECK) ./...) || exit 1; done; \
	else echo "SKIPPED: govulncheck: it or its database, https://vuln.go.dev, is out of reach"; fi

interop: ## the programs of others against ours, written to docs/interop.md
	$(GO) test -count=1 ./interop -write

# No part of make test, since SPIRE takes long to build. docs/spiffe.md says when it was last run.
spire: ## certmanager/spiffe with SPIRE's server and agent (first 310 MB to download and 10 minutes to build on two cores, then two minutes)
	cd certmanager/spiffe/e2e/tools && GOWORK=off $(GO) build -o bin/ tool
	cd certmanager/spiffe/e2e && $(GO) test -count=1 -v -timeout 15m -spire $(CURDIR)/certmanager/spiffe/e2e/tools/bin

testdata: ## makes testdata/certs anew
	$(GO) run ./testdata/certs/generate
