# `make test` and `make lint` are what .ci/run calls; `make help` lists the rest.

.DEFAULT_GOAL := help
CARGO := cargo

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

.PHONY: prerequisites
prerequisites: ## install what is missing (Debian packages)
	@scripts/prerequisites

.PHONY: test
test: prerequisites ## all tests but the long ones, on real PostgreSQL and RabbitMQ
	$(CARGO) test --workspace --all-features

# No tests, but processes that tests start and kill.
HELPERS := --skip process_to_be_killed --skip process_with_an_authority

.PHONY: nightly
nightly: prerequisites features loom msrv ## the long tests, each feature alone, the oldest compiler
	$(CARGO) test --workspace --all-features -- --ignored $(HELPERS) --skip quiet:: --skip storm::long_ --skip overload:: --skip loss:: --skip soak:: --skip dashboard:: --skip telemetry::cost
	$(CARGO) test -p stack --test it -- --ignored --test-threads=1 quiet::
	$(MAKE) overload
	$(MAKE) page
	$(MAKE) loss
	$(MAKE) soak
	cd bench && $(CARGO) clippy --locked --workspace --all-targets -- --deny warnings

.PHONY: page
page: prerequisites ## Store's live page held to axe-core, which is had from npm; pictures of it in target/page
	scripts/axe
	$(CARGO) test -p stack --test it -- --ignored dashboard::

# One after the other: with RabbitMQ, then without.
.PHONY: chaos
chaos: prerequisites ## purchases, refunds and claims in ten minutes of kills with RabbitMQ and ten without: CHAOS_SECONDS for each, CHAOS_SEED to repeat
	$(CARGO) test -p stack --test it -- --ignored --nocapture --test-threads=1 storm::long_

# Optimized: what ships is what is measured.
LOADED := $(CARGO) test --profile load -p stack --test it -- --ignored --nocapture --test-threads=1

.PHONY: overload
overload: prerequisites ## four times what Store can carry, and thousands of connections that only sit there: OVERLOAD_SECONDS; wants an idle machine
	$(LOADED) overload::

.PHONY: telemetry-cost
telemetry-cost: prerequisites ## what metrics and traces take of the throughput, at most 5 %: COST_ROUNDS; wants an idle machine, for 3 minutes
	$(LOADED) telemetry::cost

.PHONY: loss
loss: prerequisites ## reads through five minutes without Warehouse, and without Warranty, killed and frozen: LOSS_SECONDS; wants an idle machine, for half an hour
	$(LOADED) loss::

.PHONY: soak
soak: prerequisites ## half of what Store can carry for ten minutes: nothing grows; SOAK_SECONDS
	$(LOADED) soak::

# As Cargo.toml lists them, `default` (nothing) among them.
FEATURES := $(shell sed -n '/^\[features\]/,/^\[/s/^\([a-z]*\) = .*/\1/p' resilience/Cargo.toml)

# As many cases as run for some ten minutes on two cores.
FUZZ_PARSERS ?= 200000

.PHONY: fuzz
fuzz: prerequisites ## schemathesis against each service's OpenAPI document, and made-up bytes against every parser: FUZZ_SECONDS for each service, FUZZ_PARSERS cases for each parser, FUZZ_SEED to repeat
	@command -v python3 >/dev/null || { echo "python3 is missing (Debian: python3 python3-venv)" >&2; exit 1; }
	scripts/fuzz
	PROPTEST_CASES=$(FUZZ_PARSERS) $(CARGO) test -p service -p resilience --all-features --lib -- any_ bytes

.PHONY: features
features: ## the library with each of its features alone, without warnings
	@test -n "$(FEATURES)"
	@set -e; for feature in $(FEATURES); do echo "resilience: $$feature alone"; \
		$(CARGO) clippy --quiet -p resilience --no-default-features --features $$feature -- --deny warnings; \
	done

.PHONY: loom
loom: ## the breaker's lock-free core, in every order in which threads can run
	RUSTFLAGS='--cfg loom' $(CARGO) test -p resilience --release --lib --target-dir target/loom loom

RUST_VERSION := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

.PHONY: msrv
msrv: ## the library with the oldest compiler that is promised, where that is installed
	@if rustup run $(RUST_VERSION) rustc --version 2>/dev/null; then \
		rustup run $(RUST_VERSION) cargo check -p resilience --all-features --target-dir target/msrv; \
	else \
		echo "SKIPPED: Rust $(RUST_VERSION) isn't installed (rustup toolchain install $(RUST_VERSION))"; \
	fi

.PHONY: bench
bench: prerequisites ## the breaker beside its peers, deferred calls and sagas beside what they stand on, the whole path beside the same SQL without hops; writes docs/benchmarks*.md, and fails when a limit is missed
	cd bench && $(CARGO) run --release --locked
	cd bench && $(CARGO) run --release --locked -p bench-durable
	cd bench && $(CARGO) run --release --locked -p bench-path

.PHONY: bench-smoke
bench-smoke: prerequisites ## the benches of the breaker and of the whole path, once and in short, whatever they find: that they work
	cd bench && BENCH_SMOKE=1 $(CARGO) run --release --locked
	cd bench && BENCH_SMOKE=1 CARGO_PROFILE_RELEASE_LTO=off $(CARGO) run --release --locked -p bench-path

.PHONY: lint
lint: prerequisites ## formatting, clippy and rustdoc, warnings as errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features -- --deny warnings
	RUSTDOCFLAGS='--deny warnings' $(CARGO) doc --workspace --all-features --no-deps

.PHONY: audit
audit: ## licences, sources, bans, advisories and unused dependencies; AUDIT=offline leaves out the advisories
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	@command -v cargo-machete >/dev/null || $(CARGO) install --locked cargo-machete
	$(CARGO) deny check bans licenses sources $(if $(filter offline,$(AUDIT)),,advisories)
	$(CARGO) machete

.PHONY: lint-ship
lint-ship: ## what ships the store, by others' rules and schemas; its tools are had from PyPI and npm
	@scripts/lint-ship
