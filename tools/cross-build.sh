#!/usr/bin/env bash
# Builds the release daemon for each target of a board, or for those named, with Debian's cross compilers.
#
# Out come target/TARGET/release/lastorders, stripped, to be flashed, and lastorders.symbols beside it, the same
# with its symbols, for gdb and for `make size`.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

need cc gcc libc6-dev # build scripts run here
need_std_source
[ $# -gt 0 ] || set -- "${TARGETS[@]}"
for target; do
    need_compiler "$target"
done
for target; do
    use_target "$target"
    cross_cargo rustc "$target" --release --bin lastorders -- -C strip=none
    built=target/$target/release/lastorders
    cp "$built" "$built.symbols"
    # Not in place: cargo keeps a second name for that file, which must stay as it was built.
    "$prefix-strip" -o "$built.stripped" "$built"
    mv -f "$built.stripped" "$built"
    printf '%s: %s bytes\n' "$built" "$(stat -c %s "$built")"
done
