#!/usr/bin/env bash
# Runs a command that runs tests, such as `cargo test`, and says at the end which tests were skipped, and
# `N passed, N failed, N skipped`. A skipped test says so itself, and its runner counts it among those that passed.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT

"$@" 2>&1 | tee "$log"
code=$?
printf '\n== skipped\n'
grep -oE 'skipped: .*|^test .* \.\.\. ignored.*' "$log" | sort -u || echo nothing
awk '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    /skipped: [a-z]/ { skipped++ }
    END { printf "\n%d passed, %d failed, %d skipped\n", passed - skipped, failed, skipped + ignored }' "$log"
exit $code
