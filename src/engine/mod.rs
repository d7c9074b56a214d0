//! The engine: every connection of a server and the threads that serve them.
//!
//! Read [`ownership`] first: it holds the slots, and says which thread may touch one. [`driver`] decides what becomes
//! of an [`endpoint`], [`queue`] what a worker does next, [`poller`] waits for the parked connections and [`deadlines`]
//! for their time; [`workers`] runs all of it. This file joins them for the accept loop, whose side of the engine is
//! [`Pool`].

#[cfg(lastorders_bench)]
pub mod bench;
mod blocks;
mod close_log;
mod deadlines;
mod driver;
mod endpoint;
mod ownership;
mod poller;
mod queue;
mod serving;
mod sync;
mod workers;

use std::sync::Arc;

use crate::config::SWEEP_EVERY;
use crate::connection::{Client, CloseReason, Connection, Interest};
use crate::datagram::UdpEndpoint;
use crate::error::Error;
use crate::stats::{Stats, StatsSource};
use crate::sys::Tick;
pub(crate) use blocks::block_pairs;
pub(crate) use driver::{Driver, Event, Next, Services};
pub(crate) use endpoint::Endpoint;
use ownership::{Owned, Ready, Slots};
use poller::Poller;
use queue::{Progress, Queue, Work};
pub(crate) use serving::{Activity, Refused, Serving};
use sync::share;
use workers::Workers;

/// What the workers and the accept loop share.
struct Engine {
    services: Arc<Services>,
    slots: Slots<Endpoint>,
    queue: Queue,
    poller: Poller,
}

/// The accept loop's side of the engine: it admits clients, meets deadlines and shuts down. Its methods never block.
pub(crate) struct Pool {
    engine: Arc<Engine>,
    driver: Driver,
    /// `None` before the start.
    workers: Option<Workers>,
}

impl Engine {
    fn new(services: Arc<Services>, endpoints: Vec<UdpEndpoint>) -> Result<Engine, Error> {
        let context = &services.context;
        let leader = Arc::new(crate::sys::Event::new().map_err(Error::setup("make the leader's event"))?);
        let poller = Poller::new(&leader)?;
        let connections = context.limits.connections;
        for (token, endpoint) in (connections as u16..).zip(&endpoints) {
            let watched = poller.watch(&endpoint.socket, token, Interest::Input, &mut None);
            watched.map_err(Error::setup("watch a datagram socket"))?;
        }
        let work = if services.never_block() { Work::NeverBlocks } else { Work::MayBlock };
        Ok(Engine {
            slots: Slots::new(connections, endpoints.into_iter().map(Endpoint::Udp).collect(), share(&context.wake)),
            queue: Queue::new(context.limits.queue, work, share(&leader), share(&context.wake)),
            poller,
            services,
        })
    }

    /// Gives the driver an event for an owned endpoint, and does what the driver says. Returns an endpoint that has
    /// more to do.
    #[must_use]
    fn drive(&self, mut owned: Owned<'_, Endpoint>, event: Event, driver: &mut Driver) -> Option<Ready> {
        let next = match driver.on(&mut owned, event) {
            Next::Park(interest) => self.watch(&mut owned, interest),
            next => next,
        };
        match next {
            Next::Park(_) => {
                let (idle, deadline) = (owned.idle(), owned.deadline());
                owned.park(idle, deadline)
            }
            Next::Requeue => Some(owned.requeue()),
            Next::Close(reason) => {
                self.close(owned, reason, driver);
                None
            }
        }
    }

    /// Has the poller watch a connection before it is parked: an edge from here on is kept.
    fn watch(&self, owned: &mut Owned<'_, Endpoint>, interest: Interest) -> Next {
        let token = owned.token();
        let Endpoint::Tcp(connection) = &mut **owned else { return Next::Park(interest) };
        let mut watched = connection.watched;
        let outcome = match connection.socket() {
            Some(socket) => self.poller.watch(socket, token, interest, &mut watched),
            None => Ok(()),
        };
        connection.watched = watched;
        match outcome {
            Ok(()) => Next::Park(interest),
            // Out of kernel memory, or beyond fs.epoll.max_user_watches.
            Err(error) => Next::Close(CloseReason::Error(error.into())),
        }
    }

    fn close(&self, mut owned: Owned<'_, Endpoint>, reason: CloseReason, driver: &mut Driver) {
        let reason = driver.end(&mut owned, reason);
        if let Endpoint::Tcp(connection) = &*owned {
            self.services.record_close(connection.peer(), connection.service(), &reason);
        }
        owned.close();
        if self.services.context.is_draining() && self.slots.open() == 0 {
            // The accept loop waits for the end of the last connection.
            self.services.context.wake.raise();
        }
    }
}

impl StatsSource for Engine {
    fn stats(&self) -> Stats {
        let Progress { queued, longest, .. } = self.queue.progress();
        let context = &self.services.context;
        // In this order: a connection that begins or ends meanwhile may be counted twice, but none is missing.
        let accepted = context.counters.accepted.value();
        let open = self.slots.open() as u64;
        Stats {
            accepted,
            open,
            parked: self.slots.parked() as u64,
            queued: queued as u64,
            queued_max: longest as u64,
            ..context.stats()
        }
    }
}

impl Pool {
    /// Makes the slots of `services` and those of the datagram sockets. No worker runs yet.
    ///
    /// # Errors
    /// When the kernel refuses the poller or an event.
    pub(crate) fn new(services: Services, endpoints: Vec<UdpEndpoint>) -> Result<Pool, Error> {
        let services = Arc::new(services);
        let driver = Driver::new(services.clone(), services.context.limits.workers);
        Ok(Pool { engine: Arc::new(Engine::new(services, endpoints)?), driver, workers: None })
    }
}

impl Pool {
    /// Closes every connection that no worker owns.
    fn close_unowned(&mut self, event: Event) {
        let Pool { engine, driver, .. } = self;
        for token in engine.slots.tokens() {
            if let Some(ready) = engine.slots.claim(token).and_then(|owned| engine.drive(owned, event, driver)) {
                engine.queue.put(ready);
            }
        }
        for _ in 0..engine.queue.progress().queued {
            let Some(ready) = engine.queue.take() else { break };
            if let Some(ready) = engine.drive(engine.slots.own(ready), event, driver) {
                engine.queue.put(ready);
            }
        }
    }
}

impl Serving for Pool {
    fn start(&mut self) -> Result<(), Error> {
        self.workers = Some(Workers::start(&self.engine)?);
        Ok(())
    }

    fn services(&self) -> &Services {
        &self.engine.services
    }

    fn stats_source(&self) -> Arc<dyn StatsSource> {
        self.engine.clone()
    }

    fn open_connections(&self) -> usize {
        self.engine.slots.open()
    }

    fn running(&self) -> usize {
        self.workers.as_ref().map_or(0, Workers::running)
    }

    fn has_slot_or_wake(&self) -> bool {
        self.engine.slots.has_free_or_wake()
    }

    fn has_queue_room_or_wake(&self) -> bool {
        self.engine.queue.has_room_or_wake()
    }

    fn has_idle_or_wake(&self) -> bool {
        self.engine.slots.has_idle_or_wake()
    }

    fn admit(&mut self, client: Client, _release: &mut dyn FnMut()) -> Result<(), Refused> {
        let (engine, services) = (&self.engine, &self.engine.services);
        let (context, service) = (&services.context, usize::from(client.service));
        let occupy = |client, token| Endpoint::Tcp(Connection::new(context.clone(), client, token));
        let owned = engine.slots.admit(client, occupy).map_err(|client| Refused { client, pause: None })?;
        services.count_accepted(service);
        context.counters.open_max.raise(engine.slots.open() as u64);
        let ready = if context.is_draining() {
            // The accept loop gives the notice itself: the workers may all be busy until the grace time ends.
            engine.drive(owned, Event::Late, &mut self.driver)
        } else if services.tcp(service).never_blocks() {
            // `open` never blocks here, so the accept loop calls it directly and saves the wake-up of a worker.
            engine.drive(owned, Event::Admitted, &mut self.driver)
        } else {
            Some(owned.requeue())
        };
        if let Some(ready) = ready {
            engine.queue.push(ready);
        }
        Ok(())
    }

    fn shed(&mut self) {
        let engine = &self.engine;
        while let Some(token) = engine.slots.longest_idle() {
            let Some(owned) = engine.slots.claim(token) else { continue };
            match engine.drive(owned, Event::Shed, &mut self.driver) {
                Some(ready) => engine.queue.push(ready),
                None => return,
            }
        }
    }

    fn next_sweep(&self) -> Option<Tick> {
        self.engine.slots.next_sweep()
    }

    fn sweep(&mut self, now: Tick) {
        let Pool { engine, driver, .. } = self;
        engine.slots.sweep(now, now.after(SWEEP_EVERY), |owned| {
            if let Some(ready) = engine.drive(owned, Event::Deadline, driver) {
                engine.queue.push(ready);
            }
        });
    }

    /// Starts the shutdown. The accept loop gives the notice to every parked and queued client; a worker gives it to
    /// the client that it serves, at the end of the turn.
    fn start_draining(&mut self) {
        let Pool { engine, driver, .. } = self;
        engine.services.context.start_draining();
        // Clients leave as soon as they have the notice: a worker that leads would wake for each of them, and take the
        // processor from the notices of the others.
        engine.queue.pause();
        for token in engine.slots.connections() {
            let owned = engine.slots.claim_or_notify(token);
            if let Some(ready) = owned.and_then(|owned| engine.drive(owned, Event::Drain, driver)) {
                engine.queue.put(ready);
            }
        }
        // The workers may all be busy for as long as the grace time lasts, so the accept loop gives the notice
        // to the clients in the queue too, and ends the sending direction of all that have had it.
        for _ in 0..engine.queue.progress().queued {
            let Some(ready) = engine.queue.take() else { break };
            let notified = engine.drive(engine.slots.own(ready), Event::Drain, driver);
            if let Some(ready) = notified.and_then(|ready| engine.drive(engine.slots.own(ready), Event::Drain, driver))
            {
                engine.queue.push(ready);
            }
        }
        engine.queue.resume();
    }

    fn force_close(&mut self) {
        self.engine.services.context.start_force_closing();
        self.engine.queue.stop();
        self.close_remaining();
    }

    fn close_remaining(&mut self) {
        self.close_unowned(Event::ForceClose);
    }

    fn finish(&mut self) {
        self.close_unowned(Event::Finish);
        self.engine.slots.shut_down_all();
    }

    /// What the workers have done. Reads only what they count in any case.
    fn activity(&self) -> Activity {
        let context = &self.engine.services.context;
        let queue = self.engine.queue.progress();
        // Where no service blocks, a worker leaves the lead vacant while it serves: with all others asleep, parked
        // clients wait too.
        let lead_is_vacant = queue.lead == queue::Lead::Vacant;
        let work_waits = queue.queued > 0 || (lead_is_vacant && self.engine.poller.is_ready());
        let done = context.served_by_workers() + context.counters.datagrams.value();
        match context.streaming.progress() {
            Some(transfers) => Activity { moves: (done + transfers).wrapping_add(queue.taken.into()), work_waits },
            None => Activity { moves: 0, work_waits: false },
        }
    }
}
