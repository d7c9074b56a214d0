#!/usr/bin/env bash
# Breaks the queue, slot and deadline protocols on purpose, one way at a time, and expects the models to notice each.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r "$top"/{Cargo.toml,Cargo.lock,src,tests} "$work"
[ -d "$top/examples" ] && cp -r "$top/examples" "$work"
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$top/target/loom" RUST_BACKTRACE=0
missed=0

mutant() { # what it breaks, file, old text, new text
    cp "$top/$2" "$work/$2"
    python3 - "$work/$2" "$3" "$4" <<'PY'
import sys
path, old, new = sys.argv[1:]
text = open(path).read()
assert text.count(old) == 1, f"{text.count(old)} places for: {old}"
open(path, "w").write(text.replace(old, new))
PY
    # Its own limit: some breaks make a model run on for ever instead of ending it.
    if (cd "$work" && LOOM_MAX_BRANCHES=100000 timeout 300 cargo test -q --release --lib model >/dev/null 2>&1); then
        echo "NOT noticed: $1"
        missed=$((missed + 1))
    else
        echo "noticed: $1"
    fi
    cp "$top/$2" "$work/$2"
}

state=src/engine/state.rs
queue=src/engine/queue.rs
deadlines=src/engine/deadlines.rs
mutant "an edge on an owned slot is forgotten" $state "OWNED => (NOTIFIED, Edge::Noted)" "OWNED => (OWNED, Edge::Noted)"
mutant "an edge on an owned slot takes it" $state "OWNED => (NOTIFIED, Edge::Noted)" "OWNED => (OWNED, Edge::Claimed)"
mutant "letting go ignores the edge" $state "                Release::Again" "                self.0.store(PARKED, Ordering::Release); Release::Parked"
mutant "letting go does not acquire what the edge published" $state \
    "self.0.swap(OWNED, Ordering::AcqRel);" "self.0.store(OWNED, Ordering::Relaxed);"
mutant "the vacant lead wakes nobody" $queue "!self.ready.is_empty() || !(self.led || self.paused)" "!self.ready.is_empty()"
mutant "left-over work wakes nobody" $queue "!self.ready.is_empty() || !(self.led || self.paused)" "!(self.led || self.paused)"
mutant "a woken worker does not say that it is awake" $queue "            inner.waking = false;" ""
mutant "a lone leader is not kicked for work" $queue \
    "inner.asleep == 0 && inner.led && !inner.kicked" "false"
mutant "nobody leads again after a pause" $queue "inner.paused = false;" ""
mutant "the leader is not kicked for the stop" $queue "let kick_leader = inner.led;" "let kick_leader = false;"
mutant "the stop wakes one sleeper only" $queue "self.available.notify_all();" "self.available.notify_one();"
mutant "the leader keeps the lead" $queue "(inner.led, inner.kicked) = (false, false);
                tokens" "inner.kicked = false;
                tokens"
mutant "a deadline is announced before the release, and not after it" $deadlines "        place.set(deadline);
        if state.release() == Release::Again {
            return Parking::Again;
        }" "        place.set(deadline);
        let told = deadline.is_some_and(|deadline| self.announce(deadline));
        if state.release() == Release::Again {
            return Parking::Again;
        }
        if deadline.is_some() {
            return if told { Parking::ParkedEarlier } else { Parking::Parked };
        }"
mutant "a deadline is set after the release" $deadlines "        place.set(deadline);
        if state.release() == Release::Again {
            return Parking::Again;
        }" "        if state.release() == Release::Again {
            return Parking::Again;
        }
        place.set(deadline);"
mutant "a deadline is not announced" $deadlines "Some(deadline) if self.announce(deadline)" "Some(_) if false"
mutant "a sweep takes what has an owner" $deadlines "Some(_) if state.claim() => Due::Claimed" "Some(_) => Due::Claimed"
mutant "a sweep forgets a later deadline" $deadlines "Some(deadline) if !deadline.reached(now) => Due::Later(deadline)" \
    "Some(deadline) if !deadline.reached(now) => Due::Never"
exit $((missed > 0))
