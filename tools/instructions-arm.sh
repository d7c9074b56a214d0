#!/usr/bin/env bash
# Counts the instructions per request of the armv7 daemon in QEMU's user emulation, with a plugin of QEMU.
#
# The loads and the method are those of `make instructions`. The daemon is the one that tools/cross-build.sh builds, or
# the armv7 program that TESTED_DAEMON names, which is then not built. On a quiet machine the figures of two runs are
# within 0.5 %. Where others use the processors, waves of 4 clients cost 1 or 2 % more or less, as fewer or more workers
# are woken for them.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

target=armv7-unknown-linux-gnueabihf
use_target "$target"
qemu=$emulator
plugin=benches/target/count-instructions.so

need "$qemu" qemu-user
[[ $("$qemu" -help || true) == *-plugin* ]] ||
    missing "$qemu is built without plugins, as Debian's is from 13 on; get Debian 12's with: apt-get install qemu-user"
need cc gcc libc6-dev
need_compiler "$target" # and the C library that the daemon runs with
[ -n "${TESTED_DAEMON:-}" ] || tools/cross-build.sh "$target"

mkdir -p "${plugin%/*}"
cc -O2 -Wall -Wextra -fPIC -shared -o "$plugin" benches/count-instructions.c
"${CARGO:-cargo}" build --release --locked --manifest-path benches/Cargo.toml --bin instructions
TESTED_DAEMON=${TESTED_DAEMON:-target/$target/release/lastorders} \
    benches/target/release/instructions "$qemu" -L "/usr/$prefix" -plugin "$plugin"
