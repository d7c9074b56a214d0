//! The system calls of the server, which end here instead of in the kernel.
//!
//! The program defines the C library's functions of these names, so the calls of the crate, of nix and of std alike
//! come here; the crate is compiled as it is. Each call first lets the schedule choose a thread. Descriptors below
//! [`BASE`] and all calls outside of a simulation are passed on to the kernel.

#![allow(unsafe_code)]

use std::net::{IpAddr, SocketAddr};
use std::slice::{from_raw_parts, from_raw_parts_mut};

use nix::errno::Errno;
use nix::libc::{
    self, SYS_clock_gettime, SYS_close, SYS_ioctl, SYS_poll, SYS_read, SYS_write, c_int, c_long, c_void, epoll_event,
    msghdr, nfds_t, pollfd, sigaction as Action, size_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage,
    socklen_t, ssize_t, syscall, timespec,
};
use shuttle::sync::mpsc;

use crate::kernel::{BASE, File, Kernel, MS, Outcome, PIPE, Wait, Waiter, Watch};
use crate::schedule::task;
use crate::sim::{self, is_running, with};

/// A scheduling point. A thread that unwinds goes on: shuttle takes a panic for the end of the simulation.
fn step() {
    if !std::thread::panicking() {
        shuttle::thread::yield_now();
    }
}

/// Wakes the threads whose waits are over.
pub(crate) fn wake() {
    for (sender, is_interrupted) in with(|sim| std::mem::take(&mut sim.kernel.woken)) {
        let _ = sender.send(is_interrupted);
    }
}

/// One call: a scheduling point, what it does, and an entry in the trace.
fn call(name: &'static str, fd: i32, act: impl FnOnce(&mut Kernel) -> Outcome) -> ssize_t {
    step();
    let outcome = with(|sim| {
        let outcome = act(&mut sim.kernel);
        sim.trace(name, fd, outcome);
        outcome
    });
    wake();
    finish(outcome)
}

fn finish(outcome: Outcome) -> ssize_t {
    match outcome {
        Ok(value) => value as ssize_t,
        Err(errno) => {
            Errno::set_raw(errno);
            -1
        }
    }
}

fn is_ours(fd: i32) -> bool {
    fd >= BASE && is_running()
}

/// Waits until `look` finds something, the time has come or a signal interrupts.
fn wait_for(
    name: &'static str,
    fd: i32,
    what: Wait,
    until: Option<u64>,
    mut look: impl FnMut(&mut Kernel) -> Result<usize, i32>,
) -> Outcome {
    step();
    let (mut has_waited, interruptible) = (false, task() == sim::ACCEPT_LOOP);
    loop {
        let (wake_up, woken) = mpsc::channel();
        let outcome = with(|sim| {
            let kernel = &mut sim.kernel;
            if !has_waited && kernel.fails(kernel.faults.wait) {
                return Some(Err(if kernel.dice.once_in(4) { libc::ENOMEM } else { libc::EINTR }));
            }
            let found = look(kernel);
            if found != Ok(0) {
                return Some(found);
            }
            if until.is_some_and(|until| until <= kernel.now) {
                return Some(Ok(0));
            }
            let (what, task) = (what.clone(), task());
            sim.kernel.waiters.push(Waiter { task, wake: wake_up, until, what, interruptible });
            None
        });
        if let Some(outcome) = outcome {
            with(|sim| {
                sim.kernel.wakes += u64::from(has_waited && name != "sleep");
                sim.trace(name, fd, outcome);
            });
            return outcome;
        }
        if woken.recv() == Ok(true) {
            with(|sim| sim.trace(name, fd, Err(libc::EINTR)));
            return Err(libc::EINTR);
        }
        has_waited = true;
    }
}

fn deadline(wait: i64) -> Option<u64> {
    (wait >= 0).then(|| with(|sim| sim.kernel.now) + wait as u64)
}

unsafe fn address(from: *const sockaddr) -> SocketAddr {
    // SAFETY: the caller passes an address of the family that it names.
    unsafe {
        match i32::from((*from).sa_family) {
            libc::AF_INET6 => {
                let v6 = &*from.cast::<sockaddr_in6>();
                (v6.sin6_addr.s6_addr, u16::from_be(v6.sin6_port)).into()
            }
            _ => {
                let v4 = &*from.cast::<sockaddr_in>();
                (v4.sin_addr.s_addr.to_ne_bytes(), u16::from_be(v4.sin_port)).into()
            }
        }
    }
}

unsafe fn write_address(address: SocketAddr, to: *mut c_void) -> socklen_t {
    // SAFETY: the caller passes room for an address of any family.
    unsafe {
        to.write_bytes(0, 1);
        match address.ip() {
            IpAddr::V4(ip) => {
                let v4 = to.cast::<sockaddr_in>();
                v4.write(std::mem::zeroed());
                (*v4).sin_family = libc::AF_INET as u16;
                (*v4).sin_port = address.port().to_be();
                (*v4).sin_addr.s_addr = u32::from_ne_bytes(ip.octets());
                size_of::<sockaddr_in>() as socklen_t
            }
            IpAddr::V6(ip) => {
                let v6 = to.cast::<sockaddr_in6>();
                v6.write(std::mem::zeroed());
                (*v6).sin6_family = libc::AF_INET6 as u16;
                (*v6).sin6_port = address.port().to_be();
                (*v6).sin6_addr.s6_addr = ip.octets();
                size_of::<sockaddr_in6>() as socklen_t
            }
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut timespec) -> c_int {
    if !is_running() {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(SYS_clock_gettime, clock, time) } as c_int;
    }
    let now = with(|sim| sim.kernel.now);
    // SAFETY: clock_gettime(2) gets a place for the time.
    unsafe { *time = timespec { tv_sec: (now / 1_000_000_000) as i64, tv_nsec: (now % 1_000_000_000) as i64 } };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_nanosleep(_: c_int, _: c_int, time: *const timespec, _: *mut timespec) -> c_int {
    // SAFETY: clock_nanosleep(2) gets the time.
    let wait = unsafe { (*time).tv_sec * 1_000_000_000 + (*time).tv_nsec };
    if !is_running() {
        // SAFETY: ppoll(2) with no descriptor sleeps, too.
        return unsafe { libc::ppoll(std::ptr::null_mut(), 0, time, std::ptr::null()) };
    }
    let _ = wait_for("sleep", 0, Wait::Sleep, deadline(wait), |_| Ok(0));
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn nanosleep(time: *const timespec, left: *mut timespec) -> c_int {
    // SAFETY: the arguments are passed on.
    unsafe { clock_nanosleep(0, 0, time, left) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int {
    if !is_running() {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(SYS_poll, fds, count, timeout) } as c_int;
    }
    // SAFETY: poll(2) gets that many.
    let fds = unsafe { from_raw_parts_mut(fds, count as usize) };
    let asked: Vec<(i32, i16)> = fds.iter().map(|fd| (fd.fd, fd.events)).collect();
    let until = deadline(i64::from(timeout) * MS as i64);
    let mut found = vec![0; asked.len()];
    let outcome = wait_for("poll", timeout, Wait::Poll(asked.clone()), until, |kernel| {
        found = kernel.poll(&asked);
        Ok(found.iter().filter(|events| **events != 0).count())
    });
    for (fd, events) in fds.iter_mut().zip(found) {
        fd.revents = events;
    }
    finish(outcome) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_create1(_: c_int) -> c_int {
    let new = || File::Epoll { watched: Default::default(), ready: Default::default() };
    call("epoll_create1", 0, |kernel| Ok(kernel.open(new()) as usize)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_ctl(epoll: c_int, op: c_int, fd: c_int, event: *mut epoll_event) -> c_int {
    // SAFETY: epoll_ctl(2) gets an event, or none to remove one.
    let watch = unsafe { event.as_ref() }.map(|event| Watch { events: event.events, data: event.u64 });
    call("epoll_ctl", fd, |kernel| kernel.epoll_ctl(epoll, op, fd, watch)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn epoll_wait(epoll: c_int, events: *mut epoll_event, most: c_int, timeout: c_int) -> c_int {
    let until = deadline(i64::from(timeout) * MS as i64);
    let mut found = vec![];
    let outcome = wait_for("epoll_wait", epoll, Wait::Epoll(epoll), until, |kernel| {
        found = kernel.take_events(epoll, most as usize)?;
        Ok(found.len())
    });
    // SAFETY: epoll_wait(2) gets room for that many.
    let room = unsafe { from_raw_parts_mut(events, most as usize) };
    for (place, (events, data)) in room.iter_mut().zip(found) {
        *place = epoll_event { events, u64: data };
    }
    finish(outcome) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn eventfd(count: u32, _: c_int) -> c_int {
    call("eventfd", 0, |kernel| Ok(kernel.open(File::Event(count.into())) as usize)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pipe2(fds: *mut c_int, flags: c_int) -> c_int {
    if !is_running() {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(libc::SYS_pipe2, fds, flags) } as c_int;
    }
    // SAFETY: pipe2(2) gets room for two.
    unsafe { fds.cast::<[c_int; 2]>().write(PIPE) };
    0
}

#[unsafe(no_mangle)]
unsafe extern "C" fn socket(_: c_int, kind: c_int, _: c_int) -> c_int {
    let is_datagram = kind & 0xf == libc::SOCK_DGRAM;
    call("socket", 0, |kernel| {
        let fd = kernel.open(File::Unbound);
        if is_datagram {
            kernel.bind(fd, ([0, 0, 0, 0], 0).into(), true)?;
        }
        Ok(fd as usize)
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn bind(fd: c_int, to: *const sockaddr, _: socklen_t) -> c_int {
    // SAFETY: bind(2) gets an address.
    let to = unsafe { address(to) };
    call("bind", fd, |kernel| {
        let is_datagram = matches!(kernel.file(fd)?, File::Datagrams { .. });
        kernel.bind(fd, to, is_datagram)
    }) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn listen(fd: c_int, _: c_int) -> c_int {
    call("listen", fd, |_| Ok(0)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn getsockname(fd: c_int, to: *mut sockaddr, length: *mut socklen_t) -> c_int {
    call("getsockname", fd, |kernel| {
        let address = kernel.local_address(fd)?;
        // SAFETY: getsockname(2) gets room for an address, and for its length.
        unsafe { *length = write_address(address, to.cast()) };
        Ok(0)
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn setsockopt(fd: c_int, level: c_int, name: c_int, _: *const c_void, _: socklen_t) -> c_int {
    call("setsockopt", fd, |kernel| {
        if (level, name) == (libc::SOL_SOCKET, libc::SO_LINGER) {
            kernel.stream(fd)?.set_aborting();
        }
        Ok(0)
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn accept4(fd: c_int, to: *mut sockaddr, length: *mut socklen_t, _: c_int) -> c_int {
    let accepted = call("accept", fd, |kernel| {
        let (fd, peer) = kernel.accept(fd)?;
        // SAFETY: accept4(2) gets room for an address, and for its length.
        unsafe { *length = write_address(peer, to.cast()) };
        Ok(fd as usize)
    });
    match Errno::last() {
        Errno::EAGAIN if accepted < 0 => {}
        _ => with(sim::Sim::note_event),
    }
    accepted as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recv(fd: c_int, into: *mut c_void, length: size_t, flags: c_int) -> ssize_t {
    // SAFETY: recv(2) gets room for that much.
    let into = unsafe { from_raw_parts_mut(into.cast::<u8>(), length) };
    step();
    let outcome = with(|sim| {
        let (now, peeks) = (sim.kernel.now, flags & libc::MSG_PEEK != 0);
        let outcome = sim.kernel.stream(fd).and_then(|connection| connection.receive(into, peeks, now));
        sim.trace("recv", fd, outcome);
        if let (Ok(File::Stream(id)), false) = (sim.kernel.file(fd), peeks) {
            let id = *id;
            sim.received(id, outcome.unwrap_or(0));
        }
        outcome
    });
    finish(outcome)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn send(fd: c_int, bytes: *const c_void, length: size_t, _: c_int) -> ssize_t {
    // SAFETY: send(2) gets that much.
    let bytes = unsafe { from_raw_parts(bytes.cast::<u8>(), length) };
    step();
    let outcome = with(|sim| {
        let now = sim.kernel.now;
        let outcome = sim.kernel.stream(fd).and_then(|connection| connection.send(bytes, now));
        sim.trace("send", fd, outcome);
        if let (Ok(count), Ok(File::Stream(id))) = (outcome, sim.kernel.file(fd)) {
            let id = *id;
            sim.check_sent(id, &bytes[..count]);
        }
        outcome
    });
    finish(outcome)
}

#[unsafe(no_mangle)]
unsafe extern "C" fn recvmsg(fd: c_int, message: *mut msghdr, _: c_int) -> ssize_t {
    call("recvmsg", fd, |kernel| {
        // SAFETY: recvmsg(2) gets a message with one part and room for an address.
        unsafe {
            let message = &mut *message;
            let part = &mut *message.msg_iov;
            let (count, is_whole, from) =
                kernel.receive_datagram(fd, from_raw_parts_mut(part.iov_base.cast(), part.iov_len))?;
            debug_assert!(message.msg_namelen as usize >= size_of::<sockaddr_storage>());
            message.msg_namelen = write_address(from, message.msg_name);
            (message.msg_controllen, message.msg_flags) = (0, if is_whole { 0 } else { libc::MSG_TRUNC });
            Ok(count)
        }
    })
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sendto(
    fd: c_int,
    bytes: *const c_void,
    length: size_t,
    _: c_int,
    to: *const sockaddr,
    _: socklen_t,
) -> ssize_t {
    // SAFETY: sendto(2) gets that much, and an address.
    let (bytes, to) = unsafe { (from_raw_parts(bytes.cast::<u8>(), length), address(to)) };
    call("sendto", fd, |kernel| {
        if kernel.fails(kernel.faults.datagram) {
            kernel.dropped.push(to);
            return Err(libc::EAGAIN);
        }
        kernel.answered.push((bytes.to_vec(), to));
        Ok(length)
    })
}

#[unsafe(no_mangle)]
extern "C" fn shutdown(fd: c_int, how: c_int) -> c_int {
    call("shutdown", fd, |kernel| kernel.shut_down(fd, how)) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn ioctl(fd: c_int, request: libc::c_ulong, argument: *mut c_int) -> c_int {
    if !is_ours(fd) {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(SYS_ioctl, fd, request, argument) } as c_int;
    }
    call("ioctl", fd, |kernel| {
        if request == libc::FIONREAD {
            // SAFETY: FIONREAD writes one int.
            unsafe { *argument = kernel.stream(fd)?.announced() as c_int };
        }
        Ok(0)
    }) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn fcntl(fd: c_int, command: c_int, argument: *mut c_void) -> c_int {
    if !is_ours(fd) {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(libc::SYS_fcntl, fd, command, argument) } as c_int;
    }
    // std asks whether a descriptor is open before it closes it.
    finish(with(|sim| sim.kernel.file(fd).map(|_| 0))) as c_int
}

#[unsafe(no_mangle)]
extern "C" fn close(fd: c_int) -> c_int {
    if !is_ours(fd) {
        // SAFETY: the argument is passed on.
        return unsafe { syscall(SYS_close, fd) } as c_int;
    }
    step();
    let outcome = with(|sim| {
        sim.check_close(fd);
        let outcome = sim.kernel.close(fd);
        sim.trace("close", fd, outcome);
        outcome
    });
    wake();
    finish(outcome) as c_int
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(fd: c_int, into: *mut c_void, length: size_t) -> ssize_t {
    if !is_ours(fd) {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(SYS_read, fd, into, length) as ssize_t };
    }
    // SAFETY: read(2) gets room for that much.
    let into = unsafe { from_raw_parts_mut(into.cast::<u8>(), length) };
    call("read", fd, |kernel| kernel.read(fd, into))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, length: size_t) -> ssize_t {
    if !is_ours(fd) {
        // SAFETY: the arguments are passed on.
        return unsafe { syscall(SYS_write, fd, bytes, length) as ssize_t };
    }
    // SAFETY: write(2) gets that much.
    let bytes = unsafe { from_raw_parts(bytes.cast::<u8>(), length) };
    call("write", fd, |kernel| kernel.write(fd, bytes))
}

#[unsafe(no_mangle)]
unsafe extern "C" fn sigaction(signal: c_int, action: *const Action, old: *mut Action) -> c_int {
    if !is_running() {
        // SAFETY: the arguments are passed on to the C library's other name for the function.
        return unsafe { __sigaction(signal, action, old) };
    }
    // SAFETY: sigaction(2) gets an action, room for the one before it, or both.
    unsafe {
        if !old.is_null() {
            old.write(std::mem::zeroed());
        }
        if let Some(action) = action.as_ref() {
            with(|sim| sim.handlers.insert(signal, action.sa_sigaction));
        }
    }
    0
}

unsafe extern "C" {
    /// The name that glibc calls it by itself.
    fn __sigaction(signal: c_int, action: *const Action, old: *mut Action) -> c_int;
}

/// Runs the handler of a signal, whose thread the kernel calls away from its wait first.
pub(crate) fn deliver_signal(signal: c_int) {
    let handler = with(|sim| sim.handlers.get(&signal).copied());
    if let Some(handler) = handler.filter(|handler| *handler > 1) {
        with(|sim| sim.kernel.interrupt());
        // SAFETY: the server has installed this function as a handler, which takes a number.
        let handler: extern "C" fn(c_int) = unsafe { std::mem::transmute(handler) };
        handler(signal);
        wake();
    }
}

const _: () = assert!(size_of::<c_long>() == 8, "the kernel's time fits its types");
