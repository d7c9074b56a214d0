#!/usr/bin/env bash
# Boots a read-only root file system with the daemon in QEMU, for each ARM target or for those named, and tests it
# there from outside: BusyBox init starts it, it serves, and its clients get the notice when it is stopped.
#
# What it downloads and makes is under target/board; board/qemu has the image and the test.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

[ $# -gt 0 ] || set -- "${TARGETS[@]}"
need python3 python3
need qemu-system-arm qemu-system-arm
tools/cross-build.sh "$@"
for target; do
    printf '\n== %s\n' "$target"
    board/qemu/image.sh "$target"
    use_target "$target"
    python3 board/qemu/test.py "$arch"
done
