//! The steps of a shutdown, as its phases ask for them: drain, force the close, close what is left.

use std::time::Duration;

use super::accepting::Accept;
use super::server::Server;
use crate::config::{ACCEPTS, BACKLOG};
use crate::log::info;
use crate::shutdown::Action;

impl Server {
    pub(super) fn apply(&mut self, action: Option<Action>) {
        match action {
            Some(Action::Drain) => self.drain(),
            Some(Action::ForceClose) => {
                info!("Server is shutting down...");
                self.stopping.countdown = None;
                self.serving.force_close();
            }
            Some(Action::Finish) => self.serving.finish(),
            None => {}
        }
    }

    fn drain(&mut self) {
        self.hooks.run_drain_hooks();
        let grace = self.stopping.shutdown.grace;
        self.stopping.log_grace(grace);
        self.stopping.before = self.stats();
        let second = Duration::from_secs(1);
        self.stopping.countdown = (grace > second).then(|| self.now().after(second));
        // The kernel has connected the clients in the backlog already. They get their answers and the notice, not a
        // reset.
        self.revisit_deferred();
        self.empty_backlog();
        info!("Server interrupted, notifying all clients...");
        self.serving.start_draining();
        self.empty_backlog();
    }

    fn empty_backlog(&mut self) {
        for index in 0..self.accepting.listeners.len() {
            (0..BACKLOG as usize / ACCEPTS).any(|_| self.accept_batch(index) == Accept::NoMore);
        }
    }
}
