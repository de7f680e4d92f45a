//! A non-blocking connection: frames in, pieces out.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::TcpStream;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use percolog::wire::frame::LENGTH_BYTES;

/// Pieces handed to the kernel in one call.
const GATHER_MAX: usize = 64;
/// Small pieces are collected up to this size.
const COLLECT_BYTES_MAX: usize = 256 << 10;
/// First memory for incoming frames; it doubles while a frame needs more.
const INPUT_BYTES_INITIAL: usize = 64 << 10;
/// Largest frame accepted: Kafka's own default for what a fetch may return at most, and then some.
const FRAME_BYTES_MAX: usize = 256 << 20;

#[derive(Debug)]
enum Piece {
    Owned(Vec<u8>),
    Shared(Rc<Vec<u8>>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(bytes) => bytes,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    output: VecDeque<Piece>,
    /// Bytes of the first piece that were written.
    position: usize,
    queued_bytes: u64,
    written_bytes: u64,
    spare: Vec<u8>,
    input: Vec<u8>,
    /// The bytes of `input` that no frame was taken from.
    unread: Range<usize>,
}

impl Connection {
    /// Takes over a connected socket.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Connection> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream,
            output: VecDeque::new(),
            position: 0,
            queued_bytes: 0,
            written_bytes: 0,
            spare: Vec::new(),
            input: vec![0; INPUT_BYTES_INITIAL],
            unread: 0..0,
        })
    }

    /// For the poller.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Queues a copy of `bytes`.
    pub(crate) fn queue(&mut self, bytes: &[u8]) {
        // An empty piece would never be written.
        if bytes.is_empty() {
            return;
        }
        self.queued_bytes += bytes.len() as u64;
        match self.output.back_mut() {
            Some(Piece::Owned(last)) if last.len() + bytes.len() <= COLLECT_BYTES_MAX => {
                last.extend_from_slice(bytes);
            }
            _ => {
                let mut piece = std::mem::take(&mut self.spare);
                piece.extend_from_slice(bytes);
                self.output.push_back(Piece::Owned(piece));
            }
        }
    }

    /// Queues `bytes` without a copy.
    pub(crate) fn queue_shared(&mut self, bytes: Rc<Vec<u8>>) {
        assert!(!bytes.is_empty(), "an empty piece would never be written");
        self.queued_bytes += bytes.len() as u64;
        self.output.push_back(Piece::Shared(bytes));
    }

    /// Bytes queued since the beginning.
    pub(crate) fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }

    /// Bytes that the kernel took since the beginning.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Whether something is left to be written.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Writes as much as the kernel takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); GATHER_MAX];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.output) {
                let start = if count == 0 { self.position } else { 0 };
                *slice = IoSlice::new(&piece.bytes()[start..]);
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, written: usize) {
        self.written_bytes += written as u64;
        self.position += written;
        while let Some(front) = self.output.front() {
            let length = front.bytes().len();
            if self.position < length {
                return;
            }
            self.position -= length;
            if let Some(Piece::Owned(mut piece)) = self.output.pop_front() {
                piece.clear();
                self.spare = piece;
            }
        }
    }

    /// Reads once. False when the other side has closed the connection.
    pub(crate) fn receive(&mut self) -> io::Result<bool> {
        if self.unread.is_empty() {
            self.unread = 0..0;
        } else if self.unread.end == self.input.len() {
            if self.unread.start > 0 {
                self.input.copy_within(self.unread.clone(), 0);
                self.unread = 0..self.unread.len();
            } else {
                let length = self.input.len() * 2;
                self.input.resize(length, 0);
            }
        }
        match self.stream.read(&mut self.input[self.unread.end..]) {
            Ok(count) => {
                self.unread.end += count;
                Ok(count > 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes the next whole frame, without its length. The bytes stay until the next
    /// [`Connection::receive`].
    pub(crate) fn take_frame(&mut self) -> io::Result<Option<Range<usize>>> {
        let unread = &self.input[self.unread.clone()];
        let Some((length, rest)) = unread.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = i32::from_be_bytes(*length);
        let size_bytes = usize::try_from(length)
            .ok()
            .filter(|size_bytes| *size_bytes <= FRAME_BYTES_MAX)
            .ok_or_else(|| io::Error::other(format!("a frame of {length} bytes")))?;
        if rest.len() < size_bytes {
            return Ok(None);
        }
        let start = self.unread.start + LENGTH_BYTES;
        self.unread.start = start + size_bytes;
        Ok(Some(start..start + size_bytes))
    }

    /// The bytes of a frame that was taken.
    pub(crate) fn frame(&self, range: Range<usize>) -> &[u8] {
        &self.input[range]
    }
}
