#!/usr/bin/env bash
# Breaks the engine on purpose, one way at a time, and expects the simulator to find each break within a minute, or the
# models where only another order of memory shows it. Prints the seed that has found it: tests/seeds/found keeps them.
# Arguments: words that a break's name must have, to try some only.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$top"/{Cargo.toml,Cargo.lock,src,tests,examples} "$work"
export RUST_BACKTRACE=0
# The crate is compiled for each break anew: quickly, rather than small.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_INCREMENTAL=true
export CARGO_PROFILE_RELEASE_OPT_LEVEL=2
target=${CARGO_TARGET_DIR:-$top/target}
missed=0
wanted=$*

# Builds a test program for a configuration, whose name is that of the folder too, and prints where it is.
build() { # cfg, arguments of cargo test
    local cfg=$1
    shift
    RUSTFLAGS="--cfg $cfg" CARGO_TARGET_DIR="$target/mutants/$cfg" cargo test -q --release --no-run "$@" \
        --message-format json 2>"$work/errors" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -1
}

simulate() { # fails when a simulation has found something, which is in $work/found then
    local program
    program=$(CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true build simulation --no-default-features --features log \
        --test simulator)
    [ -n "$program" ] || broken
    FIRST=${FIRST:-$(date +%s%N)} MINUTES=1 timeout 300 "$program" >"$work/found" 2>&1
}

model() { # fails when a model has noticed something
    local program
    program=$(build loom --lib)
    [ -n "$program" ] || broken
    # Its own limit: some breaks make a model run on for ever instead of ending it.
    LOOM_MAX_BRANCHES=100000 timeout 300 "$program" model >/dev/null 2>&1
}

broken() {
    cat "$work/errors"
    exit 1
}

mutant() { # what it breaks, file, old text, new text
    case $1 in *"$wanted"*) ;; *) return 0 ;; esac
    cp "$top/$2" "$work/$2"
    python3 - "$work/$2" "$3" "$4" <<'PY'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
assert text.count(old) == 1, f"{text.count(old)} places for: {old}"
open(path, "w").write(text.replace(old, new))
PY
    cd "$work"
    local start=$SECONDS
    if ! simulate; then
        echo "found in $((SECONDS - start)) s: $1: $(grep -o 'SEED=[0-9]* found.*' "$work/found" | tail -1)"
    elif ! model; then
        echo "noticed by the models: $1"
    else
        echo "NOT noticed: $1"
        missed=$((missed + 1))
    fi
    cp "$top/$2" "$work/$2"
}

driver=src/engine/driver.rs
connection=src/connection/connection.rs
engine=src/engine/mod.rs
ownership=src/engine/ownership.rs
deadlines=src/engine/deadlines.rs
queue=src/engine/queue.rs

mutant "an edge on an owned slot is forgotten" $ownership "OWNED | NOTIFIED => (NOTIFIED, false)" "OWNED | NOTIFIED => (OWNED, false)"
mutant "an edge on an owned slot takes it" $ownership "OWNED | NOTIFIED => (NOTIFIED, false)" "OWNED | NOTIFIED => (OWNED, true)"
mutant "an edge does not claim a parked slot" $ownership "PARKED => (OWNED, true)" "PARKED => (PARKED, false)"
mutant "an edge publishes nothing" $ownership \
    "match self.0.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Acquire)" \
    "match self.0.compare_exchange(seen, next, Ordering::Relaxed, Ordering::Relaxed)"
mutant "a park ignores the edge" $ownership "        if !slot.state.release() {
            return Some(Ready(token));
        }" "        if !slot.state.release() {
            slot.state.0.store(PARKED, Ordering::SeqCst);
        }"
mutant "a park does not acquire what the edge published" $ownership \
    "self.0.swap(OWNED, Ordering::AcqRel);" "self.0.store(OWNED, Ordering::Relaxed);"
mutant "a park hands the slot back and keeps the edge" $ownership "self.0.swap(OWNED, Ordering::AcqRel);" ""
mutant "a claim takes what is owned" $ownership \
    "self.0.compare_exchange(PARKED, OWNED, Ordering::SeqCst, Ordering::SeqCst).is_ok()" \
    "{ self.0.swap(OWNED, Ordering::SeqCst); true }"
mutant "a deadline is set after the release" $ownership "        slot.deadline.set(deadline);
        if !slot.state.release() {
            return Some(Ready(token));
        }" "        if !slot.state.release() {
            return Some(Ready(token));
        }
        slot.deadline.set(deadline);"
mutant "a deadline is covered before the release, and not after it" $ownership "        if !slot.state.release() {
            return Some(Ready(token));
        }" "        if let Some(deadline) = deadline {
            slots.deadlines.cover(deadline);
        }
        if !slot.state.release() {
            return Some(Ready(token));
        }
        let deadline: Option<Tick> = None;"
mutant "a deadline is not covered" $ownership "            slots.deadlines.cover(deadline);" "            let _ = deadline;"
mutant "a sweep takes what has an owner" $ownership "} else if let Some(owned) = self.claim(token) {" \
    "} else if let Some(owned) = Some(self.own(Ready(token))) {"
mutant "a sweep clears the plan behind its look" $ownership "        self.deadlines.begin_sweep();
        let mut earliest = None;
        for token in self.tokens() {
            let Some(deadline) = self.slot(token).deadline.get() else { continue };
            if !deadline.reached(now) {
                earliest = Tick::earliest([earliest, Some(deadline)]);
            } else if let Some(owned) = self.claim(token) {
                expire(owned);
            }" "        let mut earliest = None;
        let mut seen = self.tokens();
        while let Some(token) = seen.next().or_else(|| { self.deadlines.begin_sweep(); None }) {
            let Some(deadline) = self.slot(token).deadline.get() else { continue };
            if !deadline.reached(now) {
                earliest = Tick::earliest([earliest, Some(deadline)]);
            } else if let Some(owned) = self.claim(token) {
                expire(owned);
            }"
mutant "a sweep forgets a later deadline" $ownership "earliest = Tick::earliest([earliest, Some(deadline)]);" \
    "earliest = Tick::earliest([earliest, None]);"
mutant "a closed slot keeps its deadline" $ownership "        slot.deadline.set(None);
        slot.state.vacate();" "        slot.state.vacate();"
mutant "a slot that becomes free does not wake the accept loop" $ownership "if std::mem::take(&mut free.is_awaited) {" "if false {"
mutant "a connection that becomes idle does not wake the accept loop" $ownership \
    "if latest(&slots.idle_is_awaited) == 1 &&" "if false &&"
mutant "the accept loop does not look for idle ones again" $ownership "        publish(&self.idle_is_awaited, 1);
        self.idle().next().is_some()" "        publish(&self.idle_is_awaited, 1);
        false"
mutant "the accept loop looks for idle ones only before it asks to be woken" $ownership "        publish(&self.idle_is_awaited, 1);
        self.idle().next().is_some()" "        let found = self.idle().next().is_some();
        publish(&self.idle_is_awaited, 1);
        found"
mutant "an earlier deadline does not replace a later one" $deadlines \
    "is_none_or(|next| deadline.is_before(next))" "is_none()"
mutant "a plan that changed meanwhile is left" $deadlines "Err(changed) => next = changed," "Err(_) => return false,"
mutant "the vacant lead wakes no worker" $queue "!self.ready.is_empty() || self.lead_is_free()" "!self.ready.is_empty()"
mutant "left-over work wakes no worker" $queue "!self.ready.is_empty() || self.lead_is_free()" "self.lead_is_free()"
mutant "a woken worker does not say that it is awake" $queue "            inner.is_waking = false;" ""
mutant "a lone leader is not called for work" $queue "let calls = inner.asleep == 0 && inner.claim_call();" "let calls = false;"
mutant "a leader that was called is never called again" $queue \
    "(self.lead, self.is_leader_called) = (Lead::Vacant, false);" "self.lead = Lead::Vacant;"
mutant "no worker leads again after a pause" $queue "inner.is_paused = false;" ""
mutant "the end of a pause wakes no worker" $queue "        inner.is_paused = false;
        let wakes = inner.claim_wake_up(Work::MayBlock);" "        inner.is_paused = false;
        let wakes = false;"
mutant "the leader is not called for the stop" $queue "let calls = inner.lead == Lead::Taken;" "let calls = false;"
mutant "the stop wakes one sleeper only" $queue "self.available.notify_all();" "self.available.notify_one();"
mutant "the leader keeps the lead" $queue "                inner.release_lead();
                // From" "                // From"
mutant "what the leader found is lost" $queue "                    inner.push(ready);
                }
            }
        }" "                    drop(ready);
                }
            }
        }"

mutant "the notice follows a reply at once" $connection "(!left.is_zero() && left <= 2 * NOTICE_GAP).then_some(until)" \
    "{ let _ = left; None }"
mutant "a reply of 25 days ago puts the notice off" $connection "!left.is_zero() && left <= 2 * NOTICE_GAP" "!left.is_zero()"
mutant "a client that spoke in time is timed out" $driver \
    "Wait::Idle | Wait::Request => connection.receive()? != Received::Nothing," "Wait::Idle | Wait::Request => false,"
mutant "the time of a late reply begins when the server last read the clock" $driver \
    "if connection.has_output() || !connection.input().is_empty() {" "if connection.has_output() {"
mutant "a connection that is served no longer idle is shed" $driver "!connection.is_idle() || connection.receive()?" \
    "connection.receive()?"
mutant "the accept loop calls a service that may block" $driver "                Stage::Closing(_) => self.turn(connection),
                _ => Ok(Next::Requeue)," "                _ => self.turn(connection),"
mutant "what comes during the drain is not discarded" $connection "        self.notice = Notice::Given;
        self.input.reset();" "        self.input.reset();"
mutant "the drain takes the edge of a connection that lingers" $driver "                connection.readable = true;
                return self.turn(connection);" "                return self.turn(connection);"
mutant "the last worker does not call the leader" $queue "let calls = is_last && inner.claim_call();" \
    "let calls = false && is_last && inner.claim_call();"
mutant "the counters are read in another order" $engine "        let accepted = context.counters.accepted.value();
        let open = self.slots.open() as u64;" "        let open = self.slots.open() as u64;
        let accepted = context.counters.accepted.value();"
mutant "room for a part of a reply gives no more time" $driver "                if !finished && connection.output().bytes().len() < left {" \
    "                if false && !finished && connection.output().bytes().len() < left {"
mutant "a client that lingers keeps its place" $driver "        if let Stage::Lingering(..) = connection.stage {
            return Err(connection.planned_end());
        }" ""
mutant "the end of the grace time comes without a notice" $driver \
    "let sent = self.notify(connection).is_ok() && connection.flush().is_ok_and(|all| all);" "let sent = false;"
mutant "a wait without a time-out is not renewed" $driver "            connection.renew();
" ""
mutant "a late client is served" $driver "                connection.stage = Stage::Serving;
                self.notify(connection)?;
                self.turn(connection)" "                self.turn(connection)"
mutant "the notice comes before the answers" $driver "            Notice::NotDue => connection.limit_input()," \
    "            Notice::NotDue => connection.notice = Notice::AfterInput(0),"
mutant "a reply that the client does not read stays in the kernel" $driver "            connection.abort();" ""
mutant "a full queue wakes no accept loop" $queue "let has_room = inner.room_is_awaited && inner.ready.len() < self.limit;" \
    "let has_room = false && inner.room_is_awaited && inner.ready.len() < self.limit;"
mutant "a share is never given back" src/access/shares.rs "        *entry.get_mut() -= 1;" "        *entry.get_mut() -= 0;"
mutant "a paused listener is never polled again" src/server/listener.rs "self.resumes = self.resumes.filter(|tick| !tick.reached(now));" ""
exit $((missed > 0))
