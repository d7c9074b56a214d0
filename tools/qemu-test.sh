#!/usr/bin/env bash
# Tests the builds for other targets: those of the boards, or those named.
#
# The unit tests are built for the target, optimized like the daemon since some of them try every case there is, and
# run in QEMU's user emulation. The suite runs natively, since an emulated process cannot start another, and drives the
# emulated daemon. A target whose programs run on this machine needs no emulator: there the suite is of the target, too. What
# emulation cannot do is skipped: tests/run.sh lists it. The end is a table of the targets, as board/README.md has it.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

# logged NAME COMMAND...: a failure does not keep the next target from its tests.
logged() {
    local log=$logs/$1
    printf '\n== %s: %s\n' "$target" "$1"
    shift
    "$@" 2>&1 | tee "$log" || failed=1
}

# What the tests in a log of that name have come to. One that was skipped counts as passed for its runner.
results() {
    awk '/^test result: / { passed += $4; failed += $6 } /skipped: [a-z]/ { skipped++ }
        END { printf "%d passed, %d failed, %d skipped", passed - skipped, failed, skipped }' "$logs/$1"
}

[ $# -gt 0 ] || set -- "${TARGETS[@]}"
for target; do
    use_target "$target"
    [ -z "$emulator" ] || need "$emulator" qemu-user
    need_compiler "$target"
done
need_std_source
logs=target/qemu-test
mkdir -p "$logs"
table='| target | bytes | unit tests | suite |
| --- | --- | --- | --- |'
failed=
for target; do
    use_target "$target"
    tools/cross-build.sh "$target"
    daemon=target/$target/release/lastorders
    # The suite runs the examples too.
    if [ -n "$emulator" ]; then
        logged units cross_cargo test "$target" --release --lib
        "$CARGO" build --locked --examples
        TESTED_DAEMON="$(runner "$target") $daemon" logged suite "$CARGO" test --locked --test suite
    else
        logged units "$CARGO" test --locked --target "$target" --lib
        "$CARGO" build --locked --target "$target" --examples
        logged suite "$CARGO" test --locked --target "$target" --test suite
    fi
    table+="
| $target | $(stat -c %s "$daemon") | $(results units) | $(results suite) |"
done
printf '\n%s\n' "$table"
[ -z "$failed" ]
