# What a person can do here. Plain `make` lists it.
.DEFAULT_GOAL := help
.PHONY: help run test check fmt lint doc scripts api api-list msrv deny model simulate mutants repeat stampede moments \
	soak fuzz tsan miri bench bench-quick bench-check bench-build micro instructions instructions-arm cross-build qemu-test \
	reproducible board-test size ci clean

CARGO ?= cargo
ARGS ?= --tcp echo=127.0.0.1:9999
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
SCRIPTS := .ci/run $(wildcard tools/*.sh tests/*.sh board/qemu/*.sh board/qemu/init board/qemu/rootfs/etc/init.d/* \
	board/rootfs-overlay/etc/init.d/* board/openwrt/lastorders/files/*.init)

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## build the daemon and serve echo on 127.0.0.1:9999 (ARGS="..." for other options)
	$(CARGO) run --release --locked -- serve $(ARGS)

test: ## run every test: units, behaviour over real sockets, examples, documentation
	tests/run.sh $(CARGO) test --locked

check: fmt lint doc scripts ## everything that needs no run: format, lints, documentation, feature sets, scripts

fmt: ## check the format
	$(CARGO) fmt --check

lint: ## clippy on all targets, and each feature set of the library by itself
	$(CARGO) clippy --locked --all-targets -- -D warnings
	CARGO_TARGET_DIR=target/simulation RUSTFLAGS="--cfg simulation" $(CARGO) clippy --locked --no-default-features \
		--features log --test simulator -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features --features log -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features --features defmt -- -D warnings

doc: ## build the documentation; a warning is an error
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

scripts: ## check every script, where shellcheck is installed
	@if command -v shellcheck >/dev/null; then echo shellcheck -x $(SCRIPTS); shellcheck -x $(SCRIPTS); \
	else echo "skipped: the scripts: shellcheck is missing; get it with: apt-get install shellcheck"; [ "$$CI" != true ]; fi

api: ## compare the public interface with docs/public-api.txt; `make api-list` writes that anew
	$(LIST_API) | diff docs/public-api.txt -

api-list:
	$(LIST_API) >docs/public-api.txt

# In a folder of its own, and without the pages of what there was before.
LIST_API = rm -rf target/api/doc && $(CARGO) doc --quiet --locked --no-deps --target-dir target/api && \
	tools/public-api.py target/api/doc/lastorders

msrv: ## build with the oldest Rust that Cargo.toml names; needs rustup
	$(CARGO) +$(MSRV).0 build --locked --examples --lib --bins --target-dir target/msrv

deny: ## licences, duplicates and sources of the dependencies, and advisories where they can be fetched; needs cargo-deny
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing; get it with: cargo install --locked cargo-deny"; exit 1; }
	$(CARGO) deny --locked check licenses bans sources
	@if $(CARGO) deny fetch db 2>/dev/null; then $(CARGO) deny --locked check advisories; \
	else echo "skipped: the advisories: the database of RustSec cannot be fetched"; fi

model: ## explore every order of steps and of memory of the slots and their deadlines with loom
	CARGO_TARGET_DIR=target/loom RUSTFLAGS="--cfg loom" $(CARGO) test --locked --release --lib model

simulate: ## the server over a seeded kernel, clock, schedule and crowd (MINUTES=2, FROM=N; SEED=N for one, TRACE=1 to see it)
	CARGO_TARGET_DIR=target/simulation RUSTFLAGS="--cfg simulation" CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true \
		CARGO_PROFILE_RELEASE_OPT_LEVEL=2 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
		$(CARGO) test --locked --release --no-default-features --features log --test simulator

mutants: ## break the engine on purpose; the simulator or the models must notice each break (half an hour); needs python3
	tests/mutants.sh

repeat: ## run the suite 20 times, then on one processor
	tests/repeat.sh

stampede: ## two minutes of random clients and signals (STAMPEDE_SECONDS, STAMPEDE_SEED)
	STAMPEDE_SECONDS=$${STAMPEDE_SECONDS:-120} $(CARGO) test --locked --test suite stampede -- --nocapture

soak: ## a million connections and ten million requests on the release build: memory and descriptors stay flat
	$(CARGO) test --locked --release --test suite -- --ignored --nocapture soak
	$(CARGO) test --locked --release --test suite -- --nocapture the_budget_holds

bench: bench-build ## measure against tokio, epoll and others, and write docs/benchmarks.md (ten minutes)
	benches/target/release/bench

bench-quick: bench-build ## the same in less time and with less certainty, in two minutes; writes nothing
	benches/target/release/bench --quick

micro: ## measure the parts by themselves with criterion: queue, lead, parking, framing, kv
	CARGO_TARGET_DIR=benches/target/micro RUSTFLAGS="--cfg lastorders_bench" \
		$(CARGO) bench --locked --manifest-path benches/Cargo.toml --bench micro

instructions: bench-build ## count the instructions per request with callgrind, which noise does not move
	benches/target/release/instructions

instructions-arm: ## the same for the armv7 build, with a plugin of QEMU (TESTED_DAEMON=FILE for another armv7 build)
	tools/instructions-arm.sh

bench-check: ## format, lints and tests of the benchmarks, which are a package of their own
	$(CARGO) fmt --check --manifest-path benches/Cargo.toml
	$(CARGO) clippy --locked --manifest-path benches/Cargo.toml --all-targets -- -D warnings
	$(CARGO) test --locked --manifest-path benches/Cargo.toml

bench-build:
	$(CARGO) build --release --locked
	$(CARGO) build --release --locked --manifest-path benches/Cargo.toml

moments: ## SIGTERM at 200 random moments of start-up and shutdown (LASTORDERS_SEED=N for others)
	LASTORDERS_MOMENTS=200 $(CARGO) test --locked --test suite -- storms::a_signal_to_stop_ends_the_server --nocapture

fuzz: ## feed every parser what a fuzzer grows, a minute each (SECONDS_EACH=600); needs nightly, cargo-fuzz
	tools/nightly.sh fuzz

tsan: ## the unit tests and the suite under ThreadSanitizer; needs nightly
	tools/nightly.sh tsan

miri: ## the pure parts under Miri; needs nightly
	tools/nightly.sh miri

cross-build: ## build the daemon for armv7 and aarch64 with Debian's cross compilers (TARGETS="..." for others)
	tools/cross-build.sh $(TARGETS)

qemu-test: ## run the unit tests and the suite against those builds, emulated (TARGETS="..." for others)
	tests/run.sh tools/qemu-test.sh $(TARGETS)

reproducible: ## build the armv7 daemon in two folders; both must be the same to the byte
	tools/reproducible.sh

board-test: ## boot a root file system with those builds in QEMU, and test the daemon there from outside
	tools/board-test.sh

size: ## size of those builds by section and by crate, and memory of the daemon; fails over budget
	tools/size.sh

ci: ## what continuous integration runs
	bash .ci/run

clean: ## remove what was built
	$(CARGO) clean
