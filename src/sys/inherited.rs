//! Descriptors that the program was started with, by their numbers.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc::{F_DUPFD_CLOEXEC, F_GETFD, F_SETFD, FD_CLOEXEC, fcntl};

/// Takes a descriptor that the program was started with, as a duplicate that the caller owns.
///
/// The inherited number stays open, and nobody owns it: closing it here could close a file of somebody who thinks so.
/// It is given close-on-exec, so programs that this one starts do not get it. By that flag a second call knows that the
/// descriptor is taken; std and this crate open none without it.
///
/// # Errors
/// `InvalidInput` for the standard three, and for one that has close-on-exec; otherwise what fcntl(2) says.
pub(crate) fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    let refuse = |problem| Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
    if number <= 2 {
        return refuse("it is standard input, output or error; choose one from 3 on");
    }
    // SAFETY: these three commands touch no memory of the process, whatever the number means.
    let control = |command, value: i32| Errno::result(unsafe { fcntl(number, command, value) });
    let flags = control(F_GETFD, 0)?;
    if flags & FD_CLOEXEC != 0 {
        return refuse("it was not inherited, or is taken already");
    }
    control(F_SETFD, flags | FD_CLOEXEC)?;
    let duplicate = control(F_DUPFD_CLOEXEC, 3)?;
    // SAFETY: the kernel has made this descriptor just now, for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::{AsRawFd, IntoRawFd};

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
