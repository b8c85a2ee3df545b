# `make test` and `make lint` are what .ci/run calls; `make help` lists the rest.

.DEFAULT_GOAL := help
CARGO := cargo

.PHONY: help
help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / — /'

.PHONY: prerequisites
prerequisites: ## install what is missing (Debian packages)
	@scripts/prerequisites

.PHONY: test
test: prerequisites ## all tests but the long ones, on real PostgreSQL
	$(CARGO) test --workspace --all-features

.PHONY: nightly
nightly: prerequisites ## the long tests
	$(CARGO) test --workspace --all-features -- --ignored --skip process_to_be_killed

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
