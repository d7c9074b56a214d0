#!/usr/bin/env bash
# The suite 20 times in a row, then once more on a single processor. Stops at the first failure, and shows it.
set -euo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT

run() { # command before cargo, if any
    if ! "$@" cargo test --locked -q --lib --bins --tests >"$log" 2>&1; then
        cat "$log"
        exit 1
    fi
    grep -E "^test result" "$log"
}

cargo test --locked --no-run
for round in $(seq "${ROUNDS:-20}"); do
    echo "round $round"
    run env
done
echo "on one processor"
run taskset -c 0
