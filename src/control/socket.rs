//! The control socket: a Unix socket on which the accept loop itself answers one-line requests, so that it
//! answers when every worker and every slot is taken.
//!
//! In comes `status`, `status json`, `status metrics`, `stop` or `stop SECONDS`; out goes a text, and the end of
//! stream. Root and the server's own user may ask, and no other user, even if the socket file (mode 0600) lets them
//! in. A client that is slow, silent or sends rubbish costs one of a few places for a few seconds, and nothing else.

use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use heapless::{String as Text, Vec as Fixed};
use nix::errno::Errno;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, recv, send, socket,
};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::geteuid;

use super::status::{Answer, Form, text};
use crate::access::{Backoff, Failure, classify};
use crate::config::{ACCEPTS, CONTROL_CLIENTS, CONTROL_REQUEST, CONTROL_TIMEOUT, MAX_TIMEOUT};
use crate::log::{self, warn};
use crate::sys::{RateLimit, Seconds, Tick, try_lock};

/// What a client of the control socket asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Status(Form),
    Stop(Option<Duration>),
    /// No request that there is: a line for the client says so.
    Refused(Text<160>),
}

const FORBIDDEN: &[u8] = b"ERROR: only root and the user of the server may ask\n";

#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    /// The process that made the file removes it at the end.
    path: Option<PathBuf>,
    /// Device and inode of the file there.
    file: Option<(u64, u64)>,
    clients: Fixed<Client, CONTROL_CLIENTS>,
    backoff: Backoff,
    /// No client is accepted before then.
    resumes: Option<Tick>,
    refusal_lines: RateLimit,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// With room for its newline.
    request: Fixed<u8, { CONTROL_REQUEST + 1 }>,
    /// The client is dropped then, answered or not.
    until: Tick,
}

impl Control {
    /// Listens on `path`, readable and writable by the owner only. The file of a server that is gone is
    /// replaced.
    ///
    /// # Errors
    /// `AddrInUse` when a server is there, and `AlreadyExists` when the file is not a socket.
    pub(crate) fn bind(path: &Path) -> io::Result<Control> {
        let _lock = lock_directory(path);
        if is_stale(path)? {
            std::fs::remove_file(path)?;
        }
        let address = UnixAddr::new(path)?;
        let socket = unix_socket()?;
        // bind(2) makes the file with the mode of the socket (unix(7)). To change the file's mode afterwards would follow
        // a link that another user may have put there meanwhile.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        bind(socket.as_raw_fd(), &address)?;
        // From here on, an error removes the file again.
        let mut control = Control {
            listener: UnixListener::from(socket),
            path: Some(path.into()),
            clients: Fixed::new(),
            backoff: Backoff::default(),
            resumes: None,
            file: None,
            refusal_lines: RateLimit::new(1, Duration::from_secs(1)),
        };
        control.file = file_id(path).ok();
        listen(&control.listener, Backlog::new(CONTROL_CLIENTS as i32)?)?;
        Ok(control)
    }

    /// Finds whether [`bind`](Control::bind) would listen on `path`, and leaves the path as it is.
    ///
    /// # Errors
    /// As `bind`.
    #[cfg(feature = "daemon")]
    pub(crate) fn check(path: &Path) -> io::Result<()> {
        if is_stale(path)? { Ok(()) } else { Control::bind(path).map(drop) }
    }

    /// Closes a child process's copies.
    pub(crate) fn leave(mut self) {
        self.path = None;
    }

    /// The descriptors to be polled for input: the listener, unless it is to be left alone, and every client.
    pub(crate) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let listener = (!self.clients.is_full() && self.resumes.is_none()).then(|| self.listener.as_fd());
        listener.into_iter().chain(self.clients.iter().map(|client| client.stream.as_fd()))
    }

    /// When [`serve`](Control::serve) must be called even if nothing is readable.
    pub(crate) fn deadline(&self) -> Option<Tick> {
        Tick::earliest(self.clients.iter().map(|client| Some(client.until)).chain([self.resumes]))
    }

    /// Accepts, receives and answers, without a wait for any client.
    pub(crate) fn serve(&mut self, now: Tick, mut answer: impl FnMut(Ask) -> Answer) {
        if self.resumes.is_none_or(|tick| tick.reached(now)) {
            self.accept(now);
        }
        self.clients.retain_mut(|client| {
            let Some(request) = client.receive() else { return !client.until.reached(now) };
            client.finish(&answer(request));
            false
        });
    }

    fn accept(&mut self, now: Tick) {
        self.resumes = None;
        // A bound: clients that may not ask take no place, and may come without end.
        for _ in 0..ACCEPTS {
            if self.clients.is_full() {
                break;
            }
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if classify(&error) == Failure::Empty => break,
                // Out of descriptors, most likely. The listener stays readable: polled again at once, it would keep
                // the accept loop spinning until a descriptor is closed.
                Err(_) => {
                    self.resumes = Some(now.after(self.backoff.next()));
                    break;
                }
            };
            self.backoff.reset();
            let Some(stream) = self.authorize(stream) else { continue };
            // There is a place: `is_full` was false above.
            let _ = self.clients.push(Client { stream, request: Fixed::new(), until: now.after(CONTROL_TIMEOUT) });
        }
    }

    /// Returns a client that may ask, root or the server's own user, and refuses any other.
    fn authorize(&self, stream: UnixStream) -> Option<UnixStream> {
        // The credentials are those at connect(2) (unix(7)). The server's own user is read anew, for it may have
        // changed since the start.
        let (user, process) = match getsockopt(&stream, PeerCredentials) {
            Ok(peer) if peer.uid() == 0 || peer.uid() == geteuid().as_raw() => return Some(stream),
            Ok(peer) => (peer.uid(), peer.pid()),
            // Every kernel with Unix sockets knows the user. Should it fail all the same, the client is refused.
            Err(_) => (u32::MAX, 0),
        };
        let _ = send(stream.as_raw_fd(), FORBIDDEN, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        // A request that is left unread would turn the close into a reset.
        let _ = recv(stream.as_raw_fd(), &mut [0; CONTROL_REQUEST], MsgFlags::MSG_DONTWAIT);
        if let Some(count) = self.refusal_lines.event() {
            warn!("Control client of user {} (process {}) refused ({} before it not logged)", user, process, count);
        }
        None
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let Some(path) = &self.path else { return };
        if self.file.is_some_and(|own| file_id(path).is_ok_and(|found| found != own)) {
            // Another server has bound the path since, and removes its own file.
            return;
        }
        match std::fs::remove_file(path) {
            // The process may have become another user, which may not write to the directory.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(
                    "The control socket {} stays, it cannot be removed: {}",
                    log::Text(&path.display()),
                    log::Text(&error)
                );
            }
            _ => {}
        }
    }
}

impl Client {
    /// The request, once it is whole or cannot become so.
    fn receive(&mut self) -> Option<Ask> {
        // No more than there is room for: what follows the line must not make it too long.
        let mut bytes = [0; CONTROL_REQUEST + 1];
        let room = bytes.len() - self.request.len();
        let ended = match recv(self.stream.as_raw_fd(), &mut bytes[..room], MsgFlags::MSG_DONTWAIT) {
            Ok(0) => true,
            Ok(count) => self.request.extend_from_slice(&bytes[..count]).is_err(),
            Err(Errno::EAGAIN | Errno::EINTR) => return None,
            Err(_) => true,
        };
        let line = self.request.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let whole = ended || line.len() < self.request.len();
        if !whole && self.request.is_full() {
            return Some(Ask::Refused(text(format_args!("ERROR: request longer than {CONTROL_REQUEST} bytes\n"))));
        }
        whole.then(|| parse(&String::from_utf8_lossy(line)))
    }

    /// Sends the answer, which the socket's buffer has room for, and ends the stream.
    fn finish(&mut self, answer: &str) {
        let _ = send(self.stream.as_raw_fd(), answer.as_bytes(), MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// What the server makes of a request that arrives in these pieces; `None` when it is not whole.
#[cfg(all(any(test, fuzzing), not(loom)))]
pub(crate) fn receive_pieces<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Option<Ask> {
    use std::io::Write as _;
    let (stream, mut peer) = UnixStream::pair().ok()?;
    let mut client = Client { stream, request: Fixed::new(), until: crate::sys::Clock.now() };
    for piece in pieces {
        peer.write_all(piece).ok()?;
        if let Some(request) = client.receive() {
            return Some(request);
        }
    }
    peer.shutdown(Shutdown::Write).ok()?;
    client.receive()
}

fn file_id(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// Connects to the control socket of a server, without waiting for it.
///
/// # Errors
/// `WouldBlock` when a server is there that accepts no client: a debugger, or SIGSTOP, has stopped it.
pub(crate) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = unix_socket()?;
    nix::sys::socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// A socket that is neither bound nor connected, and never blocks.
fn unix_socket() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}

/// Locks the directory of the socket. Of two servers that start at the same moment, each would take the other's socket for
/// a stale one: between bind(2) and listen(2) nothing answers there. After a second a server goes on without the lock,
/// because any user who can read the directory can hold it.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?.join(".")).ok()?;
    let start = Instant::now();
    while try_lock(&directory) == Err(Errno::EWOULDBLOCK) && start.elapsed() < Duration::from_secs(1) {
        thread::sleep(Duration::from_millis(10));
    }
    Some(directory)
}

/// Whether the socket file at a path is of a server that does not answer any more.
///
/// # Errors
/// As [`Control::bind`].
fn is_stale(path: &Path) -> io::Result<bool> {
    let Ok(found) = std::fs::symlink_metadata(path) else { return Ok(false) };
    if !found.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
    }
    let in_use = |reason| Err(io::Error::new(io::ErrorKind::AddrInUse, reason));
    match connect(path) {
        Ok(_) => in_use("a server answers there"),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => in_use("a server is there, and does not answer"),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
        Err(error) => Err(error),
    }
}

fn parse(line: &str) -> Ask {
    let mut words = line.split_whitespace();
    let ask = match (words.next(), words.next()) {
        (Some("status"), None) => Some(Ask::Status(Form::Lines)),
        (Some("status"), Some("json")) => Some(Ask::Status(Form::Json)),
        (Some("status"), Some("metrics")) => Some(Ask::Status(Form::Metrics)),
        (Some("stop"), None) => Some(Ask::Stop(None)),
        (Some("stop"), Some(seconds)) => grace(seconds).map(|grace| Ask::Stop(Some(grace))),
        _ => None,
    };
    ask.filter(|_| words.next().is_none()).unwrap_or_else(|| {
        let line: Text<48> = line.escape_debug().filter(char::is_ascii).take(48).collect();
        let known = "status, status json, status metrics or stop [SECONDS]";
        Ask::Refused(text(format_args!("ERROR: unknown request \"{line}\"; send {known}\n")))
    })
}

fn grace(text: &str) -> Option<Duration> {
    let grace = Seconds::parse(text)?.0;
    (grace <= MAX_TIMEOUT).then_some(grace)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn requests_are_words() {
        assert_eq!(parse("status"), Ask::Status(Form::Lines));
        assert_eq!(parse(" status  json\r"), Ask::Status(Form::Json));
        assert_eq!(parse("stop 2.5"), Ask::Stop(Some(Duration::from_millis(2_500))));
        for bad in
            ["", "statu", "status xml", "stop now", "stop -1", "stop nan", "stop 1e9", "stop 1 2", "stop\u{1b}[2J"]
        {
            let Ask::Refused(answer) = parse(bad) else { panic!("{bad}") };
            assert!(answer.starts_with("ERROR: unknown request \"") && !answer.contains('\u{1b}'), "{answer}");
        }
        assert!(matches!(parse(&"é\u{7}".repeat(500)), Ask::Refused(_)));
    }

    #[test]
    fn a_request_is_the_same_however_it_arrives() {
        let line = [&b"status"[..], &[b' '; CONTROL_REQUEST - 6], b"\n"].concat();
        let more = [b'x'; 2 * CONTROL_REQUEST];
        for pieces in [vec![&line[..], &more], vec![&line[..3], &line[3..], &more], vec![&line[..100], &more[..0]]] {
            let whole = receive_pieces([pieces.concat().as_slice()].into_iter());
            assert_eq!(whole, Some(Ask::Status(Form::Lines)));
            assert_eq!(receive_pieces(pieces.into_iter()), whole);
        }
        let joined = [&line[3..], &more].concat();
        assert_eq!(
            receive_pieces([&line[..3], &joined].into_iter()),
            Some(Ask::Status(Form::Lines)),
            "one piece too many"
        );
        assert_eq!(
            receive_pieces([&more[..], &more].into_iter()),
            Some(Ask::Refused("ERROR: request longer than 128 bytes\n".try_into().unwrap()))
        );
    }
}
