# `make` lists the targets. Every target with a line "## name: what it does" below is in the list.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# One line before each step, so that the end of a long output says which step it belongs to.
step = printf '\n== %s\n' "$(1)"

.PHONY: help setup run cluster test test-clients test-librdkafka test-kills check bench bench-gate compare profile micro sanitize fuzz sim

help:
	@sed -n 's/^## \([a-z-]*\): /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
	  printf '  make %-15s %s\n' "$$name" "$$text"; done

## setup: checks toolchain and host, says what is missing and the command that installs it
setup:
	@tools/setup.sh

## run: builds (release) and starts a broker: Kafka on 127.0.0.1:9092, admin on 127.0.0.1:9644, data in ./data
run: setup
	@cargo build --release --bin percolog
	@exec target/release/percolog serve --data-dir ./data

## cluster: builds (release) and starts three brokers: Kafka on 127.0.0.1:9092, 9192, 9292, data in ./data/cluster
cluster: setup
	@cargo build --release --bin percolog
	@exec tools/cluster.sh

## test: the whole test suite that needs no other language
test: setup
	@$(call step,unit and integration tests)
	@cargo test --workspace
	@$(call step,simulated runtime: power cuts and planted breaches)
	@cargo test --features sim --lib
	@$(call step,glommio: tests of the runtime)
	@cargo test --features glommio --lib runtime::
	@$(call step,model checking of buffer and queue)
	@cargo test --features loom --lib loom
	@$(call step,all tests passed)

## test-clients: foreign clients and Kafka's own classes; fetches what it needs
test-clients: setup
	@tests/clients/run.sh

## test-librdkafka: librdkafka's own tests with both group protocols; long, for the night (ARGS=0030,0118 picks some)
test-librdkafka: setup
	@cargo build --release --bin percolog
	@tests/clients/librdkafka.sh $(ARGS)

## test-kills: copiers in Java, Python and Go under kill -9 of client and broker; for the night
test-kills: setup
	@cargo build --release --bin percolog
	@VICTIMS='1 broker 2 broker 1 2 broker broker' tests/clients/kills.sh \
	  java:classic java:consumer python:classic python:consumer go:classic

## check: format, lints, tidy
check: setup
	@$(call step,format)
	@cargo fmt --all --check
	@$(call step,lints)
	@cargo clippy --workspace --all-targets -- -D warnings
	@$(call step,lints with the simulated runtime)
	@cargo clippy --features sim --lib --profile test -- -D warnings
	@$(call step,lints with glommio)
	@cargo clippy --features glommio --lib --profile test -- -D warnings
	@$(call step,lints with loom)
	@cargo clippy --features loom --lib --profile test -- -D warnings
	@$(call step,tidy)
	@cargo test --test tidy

## bench: the canonical workloads; a table, JSON and a page with plots in perf/results (ARGS='--seconds 5'; --record keeps them in perf/ledger)
bench: setup
	@cargo build --release --workspace
	@perf/bench.sh $(ARGS)

## bench-gate: fails if CPU time per record grew beyond noise since the ledger (ARGS='--baseline COMMIT': since then)
bench-gate: setup
	@cargo build --release --workspace
	@perf/gate.sh $(ARGS)

## profile: where the broker's CPU time goes: by thread, layer and symbol, also in perf/results (needs perf)
profile: setup
	@cargo build --release --workspace
	@perf/profile.sh $(ARGS)

## compare: the same workloads against Apache Kafka 4.3.1, alternating (ARGS='--rounds 3 --only lz4')
compare: setup
	@cargo build --release --workspace
	@perf/compare.sh $(ARGS)

## micro: what functions cost: criterion's times (ARGS=codec picks some), then instructions (needs valgrind)
micro: setup
	@$(call step,times by criterion)
	@cargo bench --bench micro -- $(ARGS)
	@$(call step,instructions by callgrind)
	@perf/instructions.sh

# The standard library is not instrumented, so that the nightly toolchain alone is enough. Neither is
# C code, which the cc crate would hand the flag on to: gcc's instrumentation under rustc's runtime
# reports a stack-use-after-scope in zstd_opt.c that gcc's own runtime does not. C is not checked here.
## sanitize: unit tests under the address sanitizer (nightly toolchain)
sanitize:
	@rustup run nightly rustc --version >/dev/null 2>&1 || { \
	  echo 'make sanitize: the nightly toolchain is missing: rustup toolchain install nightly' >&2; exit 1; }
	@target=$$(rustc -vV | sed -n 's/^host: //p'); \
	RUSTFLAGS=-Zsanitizer=address CFLAGS=-fno-sanitize=address CXXFLAGS=-fno-sanitize=address \
	  ASAN_OPTIONS=detect_leaks=0 CARGO_TARGET_DIR=target/sanitize \
	  cargo +nightly test --lib --target "$$target"

## fuzz: fuzz targets for a bounded time (not available yet)
fuzz:
	@echo 'make fuzz: not available yet: hostile bytes are tried by property tests in make test' >&2; exit 1

## sim: simulations; SEED=n repeats one, RUNS=n runs many
sim:
	@$(if $(SEED),PERCOLOG_SEED=$(SEED)) $(if $(RUNS),PERCOLOG_RUNS=$(RUNS)) \
	  cargo test --features sim --lib power_cut -- --nocapture
