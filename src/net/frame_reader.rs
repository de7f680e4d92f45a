//! Cutting a byte stream into frames without ever trusting a length.
//!
//! An idle connection holds no buffer. When bytes are there, a charged buffer takes them, often
//! several frames at once. A frame that fills a good part of its buffer keeps it (no copy, the
//! buffer is shared by the frames in it); a small one is copied out and the buffer is used again.
//! For a frame that has not arrived whole the buffer grows to at most twice what has arrived, or
//! to what this connection's previous frame took.

use std::cell::RefCell;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;

use super::admission::{Account, Admission, Charge};
use super::close_reason::CloseReason;
use super::connection_table::Entry;
use super::frame::{Frame, FrameMemory};
use super::net_limits::NetLimits;
use super::net_metrics::{NetMetrics, add};
use super::peer::Peer;
use crate::runtime::socket::Socket;

/// The length prefix.
const PREFIX_BYTES: usize = 4;
/// Smallest buffer, also when memory is tight.
const MIN_BUFFER_BYTES: usize = 4 << 10;
/// What the first read of a connection may take; buffers of this size are reused.
const READ_BUFFER_BYTES: usize = 16 << 10;
/// The most that is allocated because of what the connection sent before.
const MAX_TRUSTED_BYTES: usize = 1 << 20;
/// Read buffers a core keeps for reuse.
const MAX_SPARE_BUFFERS: usize = 32;

/// What all readers of one core share.
pub(crate) struct ReaderContext {
    pub(crate) limits: Rc<NetLimits>,
    pub(crate) admission: Admission,
    pub(crate) metrics: Rc<NetMetrics>,
    pub(crate) spare: RefCell<Vec<Vec<u8>>>,
}

enum Buffer {
    Own(Vec<u8>, Charge),
    Shared(Arc<FrameMemory>),
}

struct Input {
    buffer: Buffer,
    start: usize,
    /// The charge may come from the reserve for small requests.
    from_reserve: bool,
}

impl Input {
    fn unread(&self) -> &[u8] {
        match &self.buffer {
            Buffer::Own(bytes, _) => &bytes[self.start..],
            Buffer::Shared(memory) => &memory.bytes()[self.start..],
        }
    }
}

/// What the unread bytes amount to.
enum Parsed {
    /// Nothing.
    Empty,
    /// A part of a frame of this many bytes with its prefix, if the prefix is whole.
    Partial(Option<usize>),
    /// A frame of this many bytes without its prefix.
    Whole(usize),
}

/// The reading side of one connection.
pub(crate) struct FrameReader {
    context: Rc<ReaderContext>,
    socket: Rc<Socket>,
    account: Arc<Account>,
    entry: Rc<Entry>,
    peer: Peer,
    input: Option<Input>,
    /// With its prefix.
    last_frame_bytes: usize,
    last_read_filled: bool,
    read_bytes: usize,
}

impl FrameReader {
    pub(crate) fn new(
        context: Rc<ReaderContext>,
        socket: Rc<Socket>,
        account: Arc<Account>,
        entry: Rc<Entry>,
        peer: Peer,
    ) -> FrameReader {
        FrameReader {
            context,
            socket,
            account,
            entry,
            peer,
            input: None,
            last_frame_bytes: 0,
            last_read_filled: false,
            read_bytes: READ_BUFFER_BYTES,
        }
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> Result<Frame, CloseReason> {
        loop {
            match self.parse()? {
                Parsed::Whole(length) => return self.cut(length).await,
                Parsed::Empty => {
                    self.recycle();
                    self.entry.end_body();
                    self.begin().await?;
                }
                Parsed::Partial(total) => {
                    let unread = self.input.as_ref().map_or(0, |input| input.unread().len());
                    self.entry.note_body(unread);
                    self.make_room(total).await?;
                }
            }
            self.read().await?;
        }
    }

    fn parse(&self) -> Result<Parsed, CloseReason> {
        let Some(input) = &self.input else {
            return Ok(Parsed::Empty);
        };
        let unread = input.unread();
        if unread.is_empty() {
            return Ok(Parsed::Empty);
        }
        let Some(prefix) = unread.first_chunk::<PREFIX_BYTES>() else {
            return Ok(Parsed::Partial(None));
        };
        let length =
            usize::try_from(i32::from_be_bytes(*prefix)).map_err(|_| CloseReason::FrameNegative)?;
        if length < self.context.limits.min_frame_bytes {
            return Err(CloseReason::FrameTooShort);
        }
        if length > self.peer.max_frame_bytes() {
            return Err(CloseReason::FrameTooLarge);
        }
        if unread.len() >= PREFIX_BYTES + length {
            Ok(Parsed::Whole(length))
        } else {
            Ok(Parsed::Partial(Some(PREFIX_BYTES + length)))
        }
    }

    /// What the connection has proven to send.
    fn trusted_bytes(&self) -> usize {
        self.last_frame_bytes.min(MAX_TRUSTED_BYTES)
    }

    async fn charge(&self, bytes: usize, small: bool) -> Result<Charge, CloseReason> {
        self.context
            .admission
            .charge(&self.account, &self.entry, bytes, small)
            .await
    }

    /// Waits without a buffer until there is something to read, then gets one.
    async fn begin(&mut self) -> Result<(), CloseReason> {
        self.socket
            .readable()
            .await
            .map_err(|_| CloseReason::PeerReset)?;
        let wanted = if self.context.admission.is_tight() {
            MIN_BUFFER_BYTES
        } else {
            self.read_bytes.max(self.trusted_bytes())
        };
        // What the read brings is not known yet; a small request must get in even when others
        // hold everything. The size is bounded by what was proven.
        let small = wanted <= READ_BUFFER_BYTES;
        let charge = self.charge(wanted, small).await?;
        let spare = if wanted == READ_BUFFER_BYTES {
            self.context.spare.borrow_mut().pop()
        } else {
            None
        };
        let bytes = spare.unwrap_or_else(|| Vec::with_capacity(wanted));
        self.input = Some(Input {
            buffer: Buffer::Own(bytes, charge),
            start: 0,
            from_reserve: small,
        });
        Ok(())
    }

    /// A frame that turned out not to be small may not stay in the reserve: it waits until there is
    /// room outside.
    async fn leave_reserve(&mut self, total: Option<usize>) -> Result<(), CloseReason> {
        let is_large = total.is_some_and(|total| total > self.context.limits.small_frame_bytes);
        if is_large && self.input.as_ref().is_some_and(|input| input.from_reserve) {
            self.charge(0, false).await?;
            if let Some(input) = &mut self.input {
                input.from_reserve = false;
            }
        }
        Ok(())
    }

    /// Sees to spare capacity for the rest of a frame of `total` bytes.
    async fn make_room(&mut self, total: Option<usize>) -> Result<(), CloseReason> {
        self.leave_reserve(total).await?;
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let unread = input.unread().len();
        let trusted = self.last_frame_bytes.min(MAX_TRUSTED_BYTES);
        let most = (2 * unread).max(MIN_BUFFER_BYTES).max(trusted);
        if let Buffer::Own(bytes, _) = &input.buffer {
            let modest = bytes.capacity() <= most.max(4 * unread);
            let fits = total.is_some_and(|total| input.start + total <= bytes.capacity());
            let spare = bytes.capacity() > bytes.len();
            if modest && spare && (fits || input.start == 0) {
                return Ok(());
            }
        }
        let wanted = total.unwrap_or(MIN_BUFFER_BYTES).min(most);
        let small = wanted <= self.context.limits.small_frame_bytes
            && total.is_none_or(|total| total <= self.context.limits.small_frame_bytes);
        let Some(Input { buffer, start, .. }) = self.input.take() else {
            return Ok(());
        };
        let buffer = match buffer {
            // A full buffer with nothing before the frame grows in place.
            Buffer::Own(mut bytes, mut charge) if start == 0 && bytes.capacity() < wanted => {
                let more = wanted - bytes.capacity();
                charge.merge(self.charge(more, small).await?);
                bytes.reserve_exact(wanted - bytes.len());
                Buffer::Own(bytes, charge)
            }
            old => {
                let charge = self.charge(wanted, small).await?;
                let mut bytes = Vec::with_capacity(wanted);
                let old = Input {
                    buffer: old,
                    start,
                    from_reserve: false,
                };
                bytes.extend_from_slice(old.unread());
                self.input = Some(old);
                self.recycle();
                Buffer::Own(bytes, charge)
            }
        };
        self.input = Some(Input {
            buffer,
            start: 0,
            from_reserve: small,
        });
        Ok(())
    }

    /// Reads once into the spare capacity.
    async fn read(&mut self) -> Result<(), CloseReason> {
        let Some(Input {
            buffer: Buffer::Own(bytes, _),
            ..
        }) = &mut self.input
        else {
            unreachable!("room was made in an own buffer")
        };
        let bytes = mem::take(bytes);
        let (room, fresh) = (bytes.capacity() - bytes.len(), bytes.is_empty());
        let (result, back) = self.socket.read(bytes).await;
        if let Some(Input {
            buffer: Buffer::Own(bytes, _),
            ..
        }) = &mut self.input
        {
            *bytes = back;
        }
        let count = match result {
            Ok(0) => return Err(CloseReason::PeerClosed),
            Ok(count) => count,
            Err(_) => return Err(CloseReason::PeerReset),
        };
        add(&self.context.metrics.received_bytes, count as u64);
        if fresh {
            self.adapt(count == room);
        }
        Ok(())
    }

    /// The first read's size follows what was there: doubled after two full ones, halved slowly.
    fn adapt(&mut self, filled: bool) {
        if filled && self.last_read_filled {
            self.read_bytes = (2 * self.read_bytes).min(MAX_TRUSTED_BYTES);
        } else if !filled && self.read_bytes > READ_BUFFER_BYTES {
            self.read_bytes = (self.read_bytes - self.read_bytes / 8).max(READ_BUFFER_BYTES);
        }
        self.last_read_filled = filled;
    }

    /// Takes a whole frame of `length` bytes out of the input.
    async fn cut(&mut self, length: usize) -> Result<Frame, CloseReason> {
        self.entry.end_body();
        self.entry.touch();
        self.last_frame_bytes = PREFIX_BYTES + length;
        let Some(input) = &mut self.input else {
            unreachable!("a whole frame is in the input")
        };
        let start = input.start + PREFIX_BYTES;
        let end = start + length;
        if let Buffer::Own(bytes, charge) = &mut input.buffer {
            if 4 * length >= bytes.capacity() {
                let memory = FrameMemory::new(mem::take(bytes), mem::take(charge));
                input.buffer = Buffer::Shared(memory);
            } else {
                let small = length <= self.context.limits.small_frame_bytes;
                let copy = bytes[start..end].to_vec();
                input.start = end;
                let charge = self.charge(length, small).await?;
                return Ok(Frame::new(FrameMemory::new(copy, charge), 0, length));
            }
        }
        let Buffer::Shared(memory) = &input.buffer else {
            unreachable!("shared above")
        };
        let frame = Frame::new(memory.clone(), start, end);
        input.start = end;
        if input.unread().is_empty() {
            self.input = None;
        }
        Ok(frame)
    }

    /// Drops the input, keeping its buffer for reuse when it has the usual size.
    fn recycle(&mut self) {
        if let Some(Input {
            buffer: Buffer::Own(mut bytes, _),
            ..
        }) = self.input.take()
            && bytes.capacity() == READ_BUFFER_BYTES
        {
            let mut spare = self.context.spare.borrow_mut();
            if spare.len() < MAX_SPARE_BUFFERS {
                bytes.clear();
                spare.push(bytes);
            }
        }
    }
}

impl Drop for FrameReader {
    fn drop(&mut self) {
        self.recycle();
    }
}
