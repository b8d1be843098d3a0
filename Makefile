# What can be done here. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export PATH := $(or $(CARGO_HOME),$(HOME)/.cargo)/bin:$(PATH)
# Where the traces are; what wants them skips, and says so, if the folder is not there.
ELCACHE_TRACES ?= $(abspath ../shared/traces)
unit soak traces: export ELCACHE_TRACES := $(ELCACHE_TRACES)

# A lock file that is not up to date is an error where nobody can commit it.
LOCKED := $(if $(filter true,$(CI)),--locked)

# The steps of `make test`, what fails fast first. The tests come last, so that their summary ends the output.
TEST_STEPS := tools fmt-check tidy lint doc doc-test guards c-test unit
LONG_STEPS := c-valgrind c-attack fuzz traces lookups clients soak bench bench-sdk

# $(call when,FILE,COMMAND): runs COMMAND if this part of the project has FILE.
when = if [ -e $(1) ]; then $(2); else echo "$@: nothing to do, there is no $(1)"; fi

# Says what the target is about, in one line.
define say
@echo "==> $@: $(1)"
endef

##@ Use

.PHONY: run
run: ## start a node on :8080 with the defaults; ARGS="-m 256" adds flags
	$(call say,build and start a node)
	@cargo run --release $(LOCKED) -- $(ARGS)

.PHONY: build
build: ## build the release binaries
	$(call say,release build)
	@cargo build --release $(LOCKED)

##@ Test

.PHONY: test
test: ## everything that a change has to pass; installs what is missing
	$(call say,$(TEST_STEPS))
	@MAKE="$(MAKE)" scripts/run-steps.sh $(TEST_STEPS)

.PHONY: test-all
test-all: ## `test`, then everything that is long or heavy
	$(call say,$(TEST_STEPS) $(LONG_STEPS))
	@MAKE="$(MAKE)" scripts/run-steps.sh $(TEST_STEPS) $(LONG_STEPS)

.PHONY: tools
tools: ## install the tools that the tests need
	$(call say,look for the tools that the tests need)
	@scripts/install-test-tools.sh

.PHONY: fmt-check
fmt-check: ## check the format
	$(call say,check the format)
	@cargo fmt --all --check

.PHONY: tidy
tidy: ## check the project's own rules: arrows, dead files, links, banned calls, licences
	$(call say,check the rules of the project)
	@cargo run --quiet $(LOCKED) -p xtask -- tidy

.PHONY: lint
lint: ## clippy, warnings denied
	$(call say,clippy)
	@cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings

.PHONY: doc
doc: ## build the code's documentation, warnings denied
	$(call say,documentation of the code)
	@RUSTDOCFLAGS="-D warnings" cargo doc $(LOCKED) --workspace --no-deps

.PHONY: doc-test
doc-test: ## run the examples in the documentation
	$(call say,examples in the documentation)
	@cargo test $(LOCKED) --quiet --doc --workspace

.PHONY: guards
guards: ## count instructions of the hot paths under callgrind and compare with the bounds
	$(call say,instruction counts of the hot paths)
	@$(call when,bench/guards/Cargo.toml,cargo bench $(LOCKED) -p elcache-guards)

.PHONY: c-test
c-test: ## test the C SDK
	$(call say,C tests)
	@cargo build $(LOCKED) -p elcache-server
	@$(MAKE) -C sdk/c test

.PHONY: unit
unit: ## unit, property and end-to-end tests; ARGS="-p elcache-core" adds flags
	$(call say,unit and property tests and end to end)
	@cargo build $(LOCKED) --workspace --bins
	@cargo nextest run $(LOCKED) --workspace $(ARGS)

##@ Long or heavy

.PHONY: c-valgrind
c-valgrind: ## the tests of the C SDK under valgrind, a minute
	$(call say,C tests under valgrind)
	@cargo build $(LOCKED) -p elcache-server
	@$(MAKE) -C sdk/c valgrind

.PHONY: c-attack
c-attack: ## local clients that mean harm beside others that behave, five minutes
	$(call say,local clients that mean harm)
	@cargo build --release $(LOCKED) -p elcache-server
	@$(MAKE) -C sdk/c attack ATTACK_SECONDS=300 SEED=$$RANDOM ELCACHED=$(abspath $(or $(CARGO_TARGET_DIR),target)/release/elcached)

.PHONY: soak
soak: ## the tests named soak_*, in release
	$(call say,long tests)
	@cargo build --release $(LOCKED) --workspace --bins
	@cargo nextest run --release $(LOCKED) --workspace --profile soak --no-tests=pass $(ARGS)

# Where DuckDB is installed to.
CLIENTS := $(abspath $(or $(CARGO_TARGET_DIR),target)/clients)

.PHONY: clients
clients: export ELCACHE_CLIENTS_PYTHON := $(CLIENTS)/bin/python
clients: ## curl, aria2c, ffmpeg and DuckDB against a node, installed from their packages; 9 GB of disk, three minutes
	$(call say,clients that others wrote)
	@scripts/install-clients.sh $(CLIENTS)
	@cargo build --release $(LOCKED) --workspace --bins
	@cargo nextest run --release $(LOCKED) --profile clients -p elcache-tests $(ARGS)

FUZZ_RUNS ?= 1000000

.PHONY: fuzz
fuzz: ## parsers of what clients send under libFuzzer, FUZZ_RUNS=1000000 inputs each; a minute, most of it to build
	$(call say,parsers under libFuzzer)
	@command -v c++ >/dev/null || bench/install.sh c++:g++
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --quiet --locked cargo-fuzz --version 0.13.2
	@cd fuzz && cargo fetch --quiet $(LOCKED) && for parser in $$(cargo fuzz list); do \
		cargo fuzz run --sanitizer none $$parser -- -runs=$(FUZZ_RUNS) -max_len=256 -verbosity=0 -print_final_stats=1; \
	done

.PHONY: traces
traces: ## hit ratios of both tiers on the traces in ELCACHE_TRACES (../shared/traces), 1.4 GB in the temporary folder; five minutes
	$(call say,hit ratios on the traces in $(ELCACHE_TRACES))
	@cargo run --release $(LOCKED) -p elcache-memory --example traces
	@cargo nextest run --release $(LOCKED) --profile soak --no-capture -p elcache-disk -E 'test(soak_sized_traces)'

.PHONY: lookups
lookups: ## the memory tier's hit path beside moka, quick_cache and foyer
	$(call say,look-ups beside other in-process caches)
	@cd lookups && cargo bench $(LOCKED)

.PHONY: bench
bench: ## measure against nginx, Varnish, Redis and memcached; QUICK=1 takes two minutes
	$(call say,measure against other caches)
	@$(call when,bench/install.sh,bench/install.sh)
	@cargo build --release $(LOCKED)
	@$(call when,bench/Cargo.toml,cargo run --release $(LOCKED) -p elcache-bench --bin elcache-bench -- $(if $(QUICK),--quick) $(ARGS))

.PHONY: bench-sdk
bench-sdk: ## the C SDK beside Redis and memcached over Unix sockets, and beside a bare pair of sockets; half a minute
	$(call say,the C SDK beside other caches over Unix sockets)
	@bench/install.sh redis-server:redis-server memcached:memcached
	@cargo build --release $(LOCKED) -p elcache-server
	@$(MAKE) -C sdk/c all
	@bench/sdk/run.sh $(or $(CARGO_TARGET_DIR),target)/release/elcached sdk/c/build $(ARGS)

.PHONY: bench-disk
bench-disk: ## the disk tier beside fio and over HTTP, on 5 GiB under target/; takes eight minutes; ARGS="5 2 ingest": one part
	$(call say,the disk tier beside fio and over HTTP)
	@command -v fio >/dev/null || bench/install.sh fio:fio
	@mkdir -p target
	@cargo run --release $(LOCKED) -p elcache-bench-disk --bin bench-disk -- target $(ARGS)

.PHONY: bench-restart
bench-restart: ## a restart on 10 million small entries, 3 GiB under target/; ARGS="100000" takes fewer; two minutes
	$(call say,restart on many small entries)
	@cargo build --release $(LOCKED) -p elcache-server -p elcache-bench-disk
	@mkdir -p target
	@cargo run --release $(LOCKED) -p elcache-bench-disk --bin bench-restart -- target $(ARGS)

##@ Work

.PHONY: fmt
fmt: ## format the code
	$(call say,format the code)
	@cargo fmt --all

.PHONY: clean
clean: ## delete what was built
	$(call say,delete what was built)
	@cargo clean

.PHONY: help
help: ## this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
