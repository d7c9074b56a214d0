#!/usr/bin/env bash
# Tests the ARM builds under QEMU's user emulation, for each target or for those named.
#
# The unit tests are built for the target, optimized like the daemon since some of them try every case there is, and
# run in the emulator. The suite runs natively, since an emulated process cannot start another, and drives the
# emulated daemon. What emulation cannot do is skipped: tests/run.sh lists it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

[ $# -gt 0 ] || set -- "${TARGETS[@]}"
for target; do
    need "$(emulator "$target")" qemu-user
done
tools/cross-build.sh "$@"
need_std_source
# The suite runs the examples too.
"$CARGO" build --locked --examples
for target; do
    printf '\n== %s: unit tests\n' "$target"
    cross_cargo test "$target" --release --lib
    printf '\n== %s: the suite against the emulated daemon\n' "$target"
    TESTED_DAEMON="$(emulator "$target") -L /usr/$(prefix "$target") target/$target/release/lastorders" \
        "$CARGO" test --locked --test suite
done
