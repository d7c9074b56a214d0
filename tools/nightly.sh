#!/usr/bin/env bash
# What needs a nightly compiler: fuzzing, ThreadSanitizer, Miri. Usage: nightly.sh fuzz [TARGET...] | tsan | miri.
#
# Installs nothing: what is missing is said, with the command that gets it, and the exit code is 3.
set -euo pipefail
cd "$(dirname "$0")/.."
NIGHTLY=${NIGHTLY:-nightly}
HOST=$(rustc -vV | sed -n 's/^host: //p')

missing() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 3
}

nightly() { cargo "+$NIGHTLY" "$@"; }

need_nightly() {
    command -v rustup >/dev/null || missing "rustup is missing; see https://rustup.rs"
    nightly --version >/dev/null 2>&1 ||
        missing "there is no toolchain $NIGHTLY; get it with: rustup toolchain install --profile minimal $NIGHTLY"
}

need_component() { # name, as rustup shows it
    rustup component list --toolchain "$NIGHTLY" --installed 2>/dev/null | grep -q "^$1" ||
        missing "$NIGHTLY lacks $1; get it with: rustup component add --toolchain $NIGHTLY $1"
}

# Each target in turn for SECONDS_EACH seconds, from its corpus; what it grows stays out of the repository.
fuzz() {
    nightly fuzz --version >/dev/null 2>&1 || missing "cargo-fuzz is missing; get it with: cargo install cargo-fuzz"
    command -v c++ >/dev/null || missing "libFuzzer needs a C++ compiler; get it with: apt-get install g++"
    # shellcheck disable=SC2046
    [ $# -gt 0 ] || set -- $(nightly fuzz list)
    local target
    for target; do
        printf '\n== %s\n' "$target"
        mkdir -p "fuzz/grown/$target" "fuzz/corpus/$target"
        nightly fuzz run "$target" "fuzz/grown/$target" "fuzz/corpus/$target" -- \
            -max_total_time="${SECONDS_EACH:-60}" -max_len=2048 -timeout=25 -print_final_stats=1
    done
}

# The unit tests, and the suite with an instrumented daemon, whose exit code tells of a race. TSAN_TESTS chooses
# others than those that the sanitizer's own thread, memory and slowness leave something to say: it makes threads, so
# that a forking server refuses to run.
tsan() {
    need_component rust-src
    export RUSTFLAGS=-Zsanitizer=thread CARGO_TARGET_DIR=target/tsan
    # Symbolizing a backtrace takes a minute of a test whose panic is on purpose.
    export RUST_BACKTRACE=0 TSAN_OPTIONS="halt_on_error=1 ${TSAN_OPTIONS:-}"
    nightly test --locked -Zbuild-std --target "$HOST" --lib
    # shellcheck disable=SC2086
    nightly test --locked -Zbuild-std --target "$HOST" --test suite -- ${TSAN_TESTS:---test-threads 2 \
        deadlines:: fairness:: full:: kv:: panics:: services:: shutdown:: udp:: control:: storms:: --skip fork \
        --skip an_idle_server_makes_no_system_call --skip silent_clients_cost_no_buffer --skip every_tenth}
}

# The unit tests that need no system call which Miri does not know. Minutes: it interprets.
miri() {
    need_component miri
    need_component rust-src
    export CARGO_TARGET_DIR=target/miri MIRIFLAGS="-Zmiri-disable-isolation ${MIRIFLAGS:-}"
    # shellcheck disable=SC2086
    nightly miri test --locked --lib -- ${MIRI_TESTS:-connection::buffer builtin::kv::request builtin::kv::blocks \
        builtin::command json::tests::a_request json::tests::other json::tests::what sys::seconds sys::clock sys::rate_limit \
        engine::driver engine::ownership::tests engine::deadlines access::admission shutdown invariants::tests::any invariants::tests::kv invariants::tests::a_command}
}

need_nightly
case ${1:-} in
fuzz | tsan | miri) "$@" ;;
*) missing "usage: ${0##*/} fuzz [TARGET...] | tsan | miri" ;;
esac
