//! The two fixed buffers of a connection: bytes that arrived, and bytes to be sent.
//!
//! Positions have 32 bits, for a buffer has at most [`BUFFER`](crate::config::BUFFER) bytes and there are many of them.
//! The driver of the thread that owns the connection lends the memory of both, and takes it back when they are empty.

use std::cell::Cell;
use std::io;

use bytes::BytesMut;

/// Bytes that have arrived and that the service has not taken yet.
#[derive(Debug)]
pub struct Input {
    block: BytesMut,
    /// Invariant: `start <= end <= block.len()`; both are 0 when nothing is waiting.
    start: u32,
    end: u32,
    /// So many of the bytes that wait are known to hold no newline, so that a line which arrives in many pieces is
    /// searched once.
    searched: Cell<u32>,
    ended: bool,
}

impl Input {
    pub(crate) fn new(block: BytesMut) -> Input {
        Input { block, start: 0, end: 0, searched: Cell::new(0), ended: false }
    }

    pub(super) fn block(&mut self) -> &mut BytesMut {
        &mut self.block
    }

    /// What is waiting, oldest first.
    pub fn bytes(&self) -> &[u8] {
        &self.block[self.start as usize..self.end as usize]
    }

    /// What is waiting, to be changed in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.searched.set(0);
        &mut self.block[self.start as usize..self.end as usize]
    }

    /// Takes the first `count` bytes away.
    ///
    /// # Panics
    /// When that is more than is waiting.
    pub fn consume(&mut self, count: usize) {
        assert!(count <= self.bytes().len(), "consumed more than was waiting");
        self.start += count as u32;
        self.searched.set(self.searched.get().saturating_sub(count as u32));
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// The first line without its end (`\n` or `\r\n`), and how many bytes to consume for it. At the end of
    /// input, what is left is a line too.
    pub fn line(&self) -> Option<(usize, &[u8])> {
        let bytes = self.bytes();
        let searched = self.searched.get() as usize;
        match bytes[searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let end = searched + at;
                let line = &bytes[..end];
                Some((end + 1, line.strip_suffix(b"\r").unwrap_or(line)))
            }
            None if !self.ended => {
                self.searched.set(bytes.len() as u32);
                None
            }
            None => (!bytes.is_empty()).then_some((bytes.len(), bytes)),
        }
    }

    /// True when nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// True when what is waiting fills the buffer: nothing more can arrive until some of it is consumed.
    pub fn is_full(&self) -> bool {
        self.bytes().len() == self.block.len()
    }

    /// True when the client will send nothing more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Room at the end, after moving what is waiting to the front if there was none.
    pub(crate) fn space(&mut self) -> &mut [u8] {
        if self.end as usize == self.block.len() && self.start > 0 {
            self.block.copy_within(self.start as usize.., 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.block[self.end as usize..]
    }

    pub(crate) fn filled(&mut self, count: usize) {
        self.end += count as u32;
        debug_assert!(self.end as usize <= self.block.len());
    }

    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    pub(super) fn reset(&mut self) {
        (self.start, self.end, self.ended) = (0, 0, false);
        self.searched.set(0);
    }
}

/// Bytes that are to be sent.
///
/// It implements [`std::io::Write`]. Bytes that do not fit are an error of the kind
/// [`WriteZero`](io::ErrorKind::WriteZero) that names the size of the buffer.
#[derive(Debug)]
pub struct Output {
    block: BytesMut,
    /// Invariant: `start <= end <= block.len()`; both are 0 when all is sent.
    start: u32,
    end: u32,
    /// It ends with the refusal of a request that is too long.
    refuses: bool,
}

impl Output {
    pub(crate) fn new(block: BytesMut) -> Output {
        Output { block, start: 0, end: 0, refuses: false }
    }

    pub(super) fn block(&mut self) -> &mut BytesMut {
        &mut self.block
    }

    /// Adds as much of `bytes` as fits and returns how much that was.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.room());
        let end = self.end as usize;
        self.block[end..end + count].copy_from_slice(&bytes[..count]);
        self.end += count as u32;
        count
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        self.block.len() - self.end as usize
    }

    /// True when all is sent.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The request is too long, and what was written last says so.
    pub(crate) fn refuse_request(&mut self) {
        self.refuses = true;
    }

    pub(crate) fn refuses(&self) -> bool {
        self.refuses
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.block[self.start as usize..self.end as usize]
    }

    pub(super) fn sent(&mut self, count: usize) {
        self.start += count as u32;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.reset();
        }
    }

    pub(crate) fn reset(&mut self) {
        (self.start, self.end, self.refuses) = (0, 0, false);
    }
}

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.push(bytes);
        if count == 0 && !bytes.is_empty() {
            let size = self.block.len();
            let text = format!("the output buffer of {size} bytes is full; write no more than its room() in one call");
            return Err(io::Error::new(io::ErrorKind::WriteZero, text));
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn input(text: &[u8]) -> Input {
        let mut input = Input::new(BytesMut::zeroed(8));
        input.space()[..text.len()].copy_from_slice(text);
        input.filled(text.len());
        input
    }

    #[test]
    fn lines_end_in_newline_with_or_without_return() {
        let mut input = input(b"a\r\nb\nc");
        assert_eq!(input.line(), Some((3, &b"a"[..])));
        input.consume(3);
        assert_eq!(input.line(), Some((2, &b"b"[..])));
        input.consume(2);
        assert_eq!(input.line(), None);
        input.end();
        assert_eq!(input.line(), Some((1, &b"c"[..])));
    }

    #[test]
    fn a_line_in_pieces_is_searched_once() {
        let mut input = Input::new(BytesMut::zeroed(64));
        for (piece, searched, line) in [(&b"ab"[..], 2, None), (b"c\r", 4, None), (b"\nd", 4, Some((5, &b"abc"[..])))] {
            input.space()[..piece.len()].copy_from_slice(piece);
            input.filled(piece.len());
            assert_eq!((input.line(), input.searched.get()), (line, searched));
        }
        input.consume(5);
        assert_eq!((input.line(), input.searched.get()), (None, 1));
        input.bytes_mut()[0] = b'\n';
        assert_eq!(input.line(), Some((1, &b""[..])), "what was changed is searched anew");
    }

    #[test]
    fn a_full_input_makes_room_by_moving_what_waits() {
        let mut input = input(b"12345678");
        assert!(input.is_full() && input.space().is_empty());
        input.consume(5);
        assert_eq!(input.space().len(), 5);
        assert_eq!(input.bytes(), b"678");
    }

    #[test]
    fn output_takes_what_fits_and_says_so() {
        let mut output = Output::new(BytesMut::zeroed(4));
        assert_eq!(output.push(b"abc"), 3);
        assert_eq!(output.push(b"de"), 1);
        assert_eq!(output.write_all(b"f").unwrap_err().kind(), io::ErrorKind::WriteZero);
        output.sent(3);
        assert_eq!(output.bytes(), b"d");
        output.sent(1);
        assert_eq!((output.is_empty(), output.room()), (true, 4));
    }
}
