#!/usr/bin/env bash
# Builds the daemon for a target, armv7's unless one is named, here and from a copy of the sources elsewhere: the two must be the
# same to the byte, and name no folder of this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

target=${1:-${TARGETS[0]}}
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tools/cross-build.sh "$target"
git ls-files -z | xargs -0 cp -P --parents -t "$copy"
env -u CARGO_TARGET_DIR "$copy/tools/cross-build.sh" "$target"
daemon=target/$target/release/lastorders
cmp "$daemon" "$copy/$daemon"
for folder in "$PWD" "$copy" "${CARGO_HOME:-$HOME/.cargo}" "$("${RUSTC:-rustc}" --print sysroot)"; do
    ! grep -F "$folder" "$daemon" || exit 1
done
printf '%s is the same from two folders: %s\n' "$daemon" "$(sha256sum "$daemon" | cut -c1-16)"
