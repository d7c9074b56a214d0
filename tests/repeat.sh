#!/usr/bin/env bash
# The suite 20 times in a row, then once more on a single processor. Stops at the first failure.
set -euo pipefail
cargo test --locked --no-run
for round in $(seq "${ROUNDS:-20}"); do
    echo "round $round"
    cargo test --locked -q --lib --bins --tests 2>&1 | grep -E "^test result|FAILED|panicked" || true
    [ "${PIPESTATUS[0]}" -eq 0 ]
done
echo "on one processor"
taskset -c 0 cargo test --locked -q --lib --bins --tests
