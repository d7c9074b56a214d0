#![allow(clippy::unwrap_used)] // A test.

use super::*;

fn queue(limit: usize) -> (Queue, Arc<Event>, Arc<Event>) {
    let event = || Arc::new(Event::new().unwrap());
    let (leader, accept_loop) = (event(), event());
    (Queue::new(limit, Work::MayBlock, leader.clone(), accept_loop.clone()), leader, accept_loop)
}

fn next(queue: &Queue) -> Job {
    queue.next::<1>(Returned::Nothing)
}

fn found(queue: &Queue, tokens: &[u16]) -> Job {
    let mut found: heapless::Vec<Ready, 4> = tokens.iter().map(|token| Ready::stand_in(*token)).collect();
    queue.next(Returned::Found(&mut found))
}

fn serve(token: u16) -> Job {
    Job::Serve(Ready::stand_in(token))
}

#[test]
fn jobs_come_first_in_first_out_and_the_idle_worker_leads() {
    let (queue, ..) = queue(2);
    queue.push(Ready::stand_in(1));
    queue.push(Ready::stand_in(2));
    assert_eq!(next(&queue), serve(1));
    assert_eq!(queue.next::<1>(Returned::Unfinished(Ready::stand_in(3))), serve(2));
    assert_eq!(next(&queue), serve(3));
    assert_eq!(next(&queue), Job::Poll);
    assert_eq!(queue.progress(), Progress { taken: 3, queued: 0, longest: 2, lead: Lead::Taken });
    assert_eq!(found(&queue, &[7, 8]), serve(7));
    assert_eq!(queue.progress(), Progress { taken: 4, queued: 1, longest: 2, lead: Lead::Vacant });
    assert_eq!(next(&queue), serve(8));
}

#[test]
fn a_queue_that_never_empties_still_looks_at_the_parked() {
    let (queue, ..) = queue(2);
    queue.push(Ready::stand_in(1));
    assert_eq!(next(&queue), serve(1));
    for _ in 1..POLL_EVERY {
        assert_eq!(queue.next::<1>(Returned::Unfinished(Ready::stand_in(1))), serve(1));
    }
    assert_eq!(queue.next::<1>(Returned::Unfinished(Ready::stand_in(1))), Job::PollOnce);
    assert_eq!(found(&queue, &[5]), serve(1));
}

#[test]
fn the_accept_loop_is_woken_for_room_once() {
    let (queue, _, accept_loop) = queue(1);
    queue.push(Ready::stand_in(1));
    assert!(!queue.has_room_or_wake());
    assert_eq!((next(&queue), accept_loop.take()), (serve(1), 1));
    queue.push(Ready::stand_in(2));
    assert_eq!((next(&queue), accept_loop.take()), (serve(2), 0));
    assert!(queue.has_room_or_wake());
}

#[test]
fn a_lone_leader_is_called_once_for_work_from_outside() {
    let (queue, leader, _) = queue(4);
    assert_eq!(next(&queue), Job::Poll);
    queue.push(Ready::stand_in(1));
    assert_eq!(leader.take(), 1);
    queue.push(Ready::stand_in(2));
    assert_eq!(leader.take(), 0);
    assert_eq!(found(&queue, &[]), serve(1));
    queue.stop();
    assert_eq!((next(&queue), leader.take()), (Job::Stop, 0));
    assert_eq!(queue.take(), Some(Ready::stand_in(2)));
}
