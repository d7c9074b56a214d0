//! What a server may cost at most, worked out before it starts: descriptors and memory.

use std::fmt;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::access::Shares;
use crate::config::{BUFFER, CONTROL_CLIENTS, DATAGRAM, DEFERRED, Limits, READY};
use crate::engine::block_pairs;
use crate::error::Error;

/// Descriptors beside listeners and connections: the signal pipe (2), the events of accept loop and leader
/// and of the shutdown (4), the poller, the reserve, one to answer a client that gets no slot, and the control socket
/// with its clients.
const ENGINE_DESCRIPTORS: u64 = 9 + 1 + CONTROL_CLIENTS as u64;
/// Kept for what the program around the server opens later: log files, a time zone, a name look-up.
const SPARE_DESCRIPTORS: u64 = 16;
/// Resident memory of the program itself, its allocator and the main thread's stack, rounded up generously.
const PROGRAM: u64 = 3 * 1024 * 1024;
/// Bytes of bookkeeping per connection beside its buffers and sessions, rounded up.
const SLOT: u64 = 512;

/// Descriptors that a forking server has beside: the two events that its children add to.
const FORKING_DESCRIPTORS: u64 = 2;
/// What a child process does not share with its parent: the pages of stack, heap and data that it writes to, its
/// page tables and its place in the kernel. Rounded up.
const CHILD: u64 = 256 * 1024;

/// The most that a server with given [`Limits`] uses. The kernel's own socket buffers are not in it: those are
/// bounded by `net.ipv4.tcp_mem`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Budget {
    /// File descriptors, those that are open already included.
    pub descriptors: u64,
    /// Bytes of workers' stacks; of a forking server's children, all that is theirs beside buffers.
    pub stacks: u64,
    /// Bytes of the buffers of connections and datagram sockets.
    pub buffers: u64,
    /// Bytes of slots, sessions, the queue, and what services hold.
    pub tables: u64,
    /// Bytes in all, the program included.
    pub memory: u64,
}

/// The sockets that a server has beside its connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) listeners: usize,
    /// Datagram sockets, those of groups included.
    pub(crate) endpoints: usize,
    pub(crate) groups: usize,
}

impl Budget {
    /// The budget of `limits` with those sockets, sessions of `session` bytes per connection, and services that hold
    /// `held` bytes. With so many `children`, one process per connection, descriptors are the parent's: it needs no more
    /// than one of its clients, and a child no more than its parent.
    pub(crate) fn new(
        limits: &Limits,
        sockets: Sockets,
        session: usize,
        children: Option<usize>,
        held: usize,
    ) -> Budget {
        let (slots, pairs, stacks, forking) = match children {
            None => {
                let pairs = block_pairs(limits.workers, limits.connections);
                (limits.connections as u64, pairs as u64, (limits.workers * limits.stack) as u64, 0)
            }
            Some(children) => (1, children as u64, children as u64 * CHILD, FORKING_DESCRIPTORS),
        };
        let (deferred, shares) = match limits.per_client {
            Some(_) => (DEFERRED as u64, children.unwrap_or(limits.connections) as u64 + 1),
            None => (0, 0),
        };
        // A group has a membership beside its socket; all share the netlink socket, and one membership more while a
        // group is joined anew.
        let memberships = sockets.groups + if sockets.groups > 0 { 2 } else { 0 };
        let sockets_open = (sockets.listeners + sockets.endpoints + memberships) as u64;
        let own = ENGINE_DESCRIPTORS + SPARE_DESCRIPTORS + forking;
        let descriptors = open_descriptors() + own + sockets_open + deferred + slots;
        let buffers = pairs * 2 * limits.buffer as u64 + (sockets.endpoints * 2 * DATAGRAM) as u64;
        let tables = slots * (SLOT + session as u64) + READY as u64 * 2 + held as u64 + shares * Shares::SIZE;
        Budget { descriptors, stacks, buffers, tables, memory: PROGRAM + stacks + buffers + tables }
    }

    /// Raises the soft limit of descriptors as far as is needed, and checks that memory suffices.
    ///
    /// `held` bytes of it are allocated already.
    ///
    /// # Errors
    /// [`Error::Descriptors`] or [`Error::Memory`], with both numbers, and [`Error::MemoryRefused`] when the kernel
    /// does not give as much.
    #[allow(clippy::unnecessary_cast, reason = "rlim_t has 32 bits on a 32-bit machine")]
    pub(crate) fn claim(&self, held: usize) -> Result<(), Error> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::setup("read RLIMIT_NOFILE"))?;
        // Compare widened, and narrow only what is known to fit.
        let allowed = hard as u64;
        if self.descriptors > allowed {
            return Err(Error::Descriptors { needed: self.descriptors, allowed });
        }
        if self.descriptors > soft as u64 {
            let wanted = self.descriptors as rlim_t;
            setrlimit(Resource::RLIMIT_NOFILE, wanted, hard).map_err(Error::setup("raise RLIMIT_NOFILE"))?;
        }
        // Of a 32-bit address space, half is more than any process gets of it in one piece.
        let addressable = usize::MAX as u64 / 2;
        let available = memory_size().map_or(addressable, |size| size.min(addressable));
        if self.memory > available {
            return Err(Error::Memory { needed: self.memory, available });
        }
        self.try_for_size(held)
    }

    /// RLIMIT_AS, RLIMIT_DATA or a kernel that does not overcommit may refuse what the machine has. An allocation
    /// that fails later would abort the process, so this asks for as much once, at start, where a refusal is an error.
    fn try_for_size(&self, held: usize) -> Result<(), Error> {
        let missing = (self.memory as usize).saturating_sub(held);
        let mut trial: Vec<u8> = Vec::new();
        let refused = trial.try_reserve_exact(missing).is_err();
        // Without this, the compiler may leave out an allocation that is not used.
        std::hint::black_box(&trial);
        if refused { Err(Error::MemoryRefused(self.memory)) } else { Ok(()) }
    }
}

impl fmt::Display for Budget {
    /// A line for each figure, sizes in KiB, and their sum.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "descriptors: {}", self.descriptors)?;
        let sizes = [("program", PROGRAM), ("stacks", self.stacks), ("buffers", self.buffers), ("tables", self.tables)];
        for (name, bytes) in sizes {
            writeln!(f, "{name}: {} KiB", bytes.div_ceil(1024))?;
        }
        // The sum of what is printed, each part of which is rounded up.
        let sum: u64 = sizes.iter().map(|(_, bytes)| bytes.div_ceil(1024)).sum();
        write!(f, "worst-case memory: {sum} KiB")
    }
}

/// How many descriptors the process has open, or 16 where /proc is not mounted.
fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").map_or(16, |entries| entries.count() as u64)
}

/// The machine's memory in bytes, if /proc/meminfo has it.
fn memory_size() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib: u64 = text.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024)
}

// The sums above stay far below 2^64, and on a 32-bit machine each product below fits before it is widened.
const _: () = assert!(*BUFFER.end() as u64 * 2 * 16_384 < u64::MAX / 4);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_adds_up() {
        let sockets = Sockets { listeners: 2, endpoints: 3, groups: 1 };
        let budget = Budget::new(&Limits::default(), sockets, 8, None, 1_000);
        assert_eq!(budget.stacks, 4 * 128 * 1024);
        assert_eq!(budget.buffers, (128 + 4 + 1 + 3) * 8192);
        assert_eq!(budget.tables, 128 * (SLOT + 8) + READY as u64 * 2 + 1_000);
        assert_eq!(budget.memory, PROGRAM + budget.stacks + budget.buffers + budget.tables);
        assert!(budget.descriptors > 128 + 2 + 3 + 1 + 2);
    }

    #[test]
    fn shares_per_client_are_in_the_budget() {
        let shared = Limits { per_client: Some(2), ..Limits::default() };
        let [alone, with] = [Limits::default(), shared.clone()].map(|limits| {
            [None, Some(50)].map(|children| Budget::new(&limits, Sockets::default(), 0, children, 0).tables)
        });
        assert_eq!(with, [alone[0] + 129 * Shares::SIZE, alone[1] + 51 * Shares::SIZE]);
    }

    #[test]
    fn the_budget_of_processes_grows_with_their_number_but_its_descriptors_do_not() {
        let [one, fifty] = [1, 50].map(|children| {
            Budget::new(&Limits::default(), Sockets { listeners: 2, ..Sockets::default() }, 8, Some(children), 0)
        });
        // Other tests open and close theirs meanwhile.
        assert!(fifty.descriptors.abs_diff(one.descriptors) < 49);
        assert_eq!((fifty.stacks, fifty.buffers), (50 * CHILD, 50 * 8192));
        assert_eq!(fifty.memory, PROGRAM + fifty.stacks + fifty.buffers + fifty.tables);
    }

    #[test]
    #[allow(clippy::unnecessary_cast, reason = "rlim_t has 32 bits on a 32-bit machine")]
    fn too_many_descriptors_are_refused_with_both_numbers() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let mut budget = Budget::new(&Limits::default(), Sockets { listeners: 1, ..Sockets::default() }, 0, None, 0);
        let hard = hard as u64;
        budget.descriptors = hard + 1;
        match budget.claim(0) {
            Err(Error::Descriptors { needed, allowed }) => assert_eq!((needed, allowed), (hard + 1, hard)),
            other => panic!("{other:?}"),
        }
    }
}
