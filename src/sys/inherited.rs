//! Descriptors that the program was started with, by their numbers.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{F_DUPFD_CLOEXEC, F_GETFD, FD_CLOEXEC, O_CLOEXEC, dup3, fcntl};

/// Takes a descriptor that the program was started with, as a duplicate that the caller owns.
///
/// The number itself stays open, with `/dev/null` behind it: if it were closed, the kernel could give it to another
/// file while other code still uses it. So no descriptor ever has two owners, and a program that waits for the end of
/// the inherited file sees it when the duplicate is closed. The number is given close-on-exec, by which a second call
/// knows that it is taken; std and this crate open none without that.
///
/// # Errors
/// `InvalidInput` for the standard three, and for one that has close-on-exec; otherwise what fcntl(2) and dup3(2) say.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let refuse = |problem| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    if number <= 2 {
        return refuse("it is standard input, output or error; choose one from 3 on");
    }
    // SAFETY: these two commands touch no memory of the process, whatever the number means.
    let control = |command, value: i32| Errno::result(unsafe { fcntl(number, command, value) });
    let flags = control(F_GETFD, 0)?;
    if flags & FD_CLOEXEC != 0 {
        return refuse("it was not inherited, or is taken already");
    }
    let null = File::open("/dev/null")?;
    let duplicate = control(F_DUPFD_CLOEXEC, 3)?;
    // SAFETY: the kernel has made this descriptor just now, for this call alone.
    let duplicate = unsafe { OwnedFd::from_raw_fd(duplicate) };
    // SAFETY: this touches no memory of the process; an owner of the number owns an open descriptor still.
    Errno::result(unsafe { dup3(null.as_raw_fd(), number, O_CLOEXEC) })?;
    Ok(duplicate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::IntoRawFd;

    use nix::fcntl::{FcntlArg, FdFlag, OFlag};
    use nix::unistd::{pipe2, write};

    #[test]
    fn an_inherited_descriptor_is_taken_once_and_none_of_ours_ever() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let refused = take_inherited(reader.as_raw_fd()).unwrap_err().to_string();
        assert!(refused.contains("not inherited"), "{refused}");
        // As it would be behind execve.
        nix::fcntl::fcntl(&writer, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let taken = take_inherited(writer.into_raw_fd()).unwrap();
        assert!(take_inherited(taken.as_raw_fd()).is_err());
        write(&taken, b"!").unwrap();
        for number in [-1, 0, 2] {
            assert_eq!(take_inherited(number).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(take_inherited(RawFd::MAX).unwrap_err().raw_os_error(), Some(Errno::EBADF as i32));
    }
}
