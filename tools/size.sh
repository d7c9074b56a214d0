#!/usr/bin/env bash
# Says what the daemon takes of flash and memory, and fails when that is more than its budget.
#
# For each ARM target: the stripped size, its sections, what each crate has of it, and the glibc it asks for.
# Code that is inlined counts for the crate it is inlined into, and a generic one for the crate it is written in.
# For the daemon on this machine: memory at 4 workers, idle and with 128 clients; an emulator's would be
# its own. One arena is enough for malloc, since serving allocates nothing; glibc would take one per thread, which are
# 64 MiB of address space each on a 64-bit machine.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/cross-env.sh

BUDGET=$((512 * 1024)) # bytes of the armv7 daemon
CLIENTS=128

# Reads `nm -S -C`: sums the sizes of code and constants by crate.
by_crate() {
    gawk '
        $3 ~ /^[tTrRdDwWvV]$/ && NF >= 4 {
            bytes = strtonum("0x" $2)
            name = $0
            sub(/^[^ ]+ [^ ]+ . /, "", name)
            mangled = name ~ /::/ || name ~ /^</
            while (sub(/^([<&(\[*]|mut |dyn |const )/, "", name)) {}
            # <T as crate::Trait>: a type without a path is a parameter or a primitive.
            if (match(name, /^[A-Za-z0-9_]+ as [<&]*/)) name = substr(name, RLENGTH + 1)
            crate = match(name, /^[A-Za-z0-9_]+::/) ? substr(name, 1, RLENGTH - 2) : mangled ? "core" : "(C and compiler)"
            sum[crate] += bytes
            total += bytes
        }
        END {
            for (crate in sum) printf "%9d %s\n", sum[crate], crate
            printf "%9d %s\n", file - total, "(unnamed constants, unwind tables, relocations, headers)"
        }' file="$1" | sort -rn
}

status() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status"; }

memory() {
    printf '%-24s VmRSS %5d KiB, VmSize %6d KiB\n' "$2" "$(status "$1" VmRSS)" "$(status "$1" VmSize)"
}

need cc gcc libc6-dev
need gawk gawk # for its strtonum
tools/cross-build.sh
over=
for target in "${TARGETS[@]}"; do
    use_target "$target"
    daemon=target/$target/release/lastorders
    bytes=$(stat -c %s "$daemon")
    printf '\n== %s: %d bytes stripped\n' "$target" "$bytes"
    case $target in armv7*) [ "$bytes" -le "$BUDGET" ] || over="$target takes $bytes bytes; the budget is $BUDGET" ;; esac
    printf 'needs glibc %s\n' "$("$prefix-objdump" -T "$daemon" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1)"
    printf '\nby section:\n'
    "$prefix-size" -A "$daemon" | awk '$1 ~ /^\./ && $2 >= 1000 { printf "%9d %s\n", $2, $1 }' | sort -rn
    printf '\nby crate:\n'
    "$prefix-nm" -S -C "$daemon.symbols" | by_crate "$bytes"
done

printf '\n== memory on this machine (%s), 4 workers, every service, MALLOC_ARENA_MAX=1\n' "$(uname -m)"
cargo build --quiet --locked --release
exec {log}< <(MALLOC_ARENA_MAX=1 exec target/release/lastorders serve --tcp echo=127.0.0.1:0 --udp time=127.0.0.1:0 \
    --tcp upper=127.0.0.1:0,upper-lines=127.0.0.1:0,command=127.0.0.1:0,kv=127.0.0.1:0 2>&1)
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true' EXIT
echo_port=
for _ in 1 2 3 4 5 6; do
    while read -r -t 30 -u "$log" line && [[ $line != *"Server started on "* ]]; do :; done
    [ -n "$echo_port" ] || { echo_port=${line#*127.0.0.1:} && echo_port=${echo_port%% *}; }
done
memory "$daemon" "without clients:"
clients=()
for ((i = 0; i < CLIENTS; i++)); do
    exec {client}<>"/dev/tcp/127.0.0.1/$echo_port"
    clients+=("$client")
    echo hello >&"$client"
    read -r -t 30 -u "$client" _
done
memory "$daemon" "with ${#clients[@]} echo clients:"

[ -z "$over" ] || {
    printf '\nover budget: %s\n' "$over"
    exit 1
}
printf '\nwithin budget: the armv7 daemon takes at most %d bytes\n' "$BUDGET"
