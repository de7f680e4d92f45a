//! One request's bytes, shared by everybody who works on it, with the memory they are charged to.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use super::admission::Charge;
use crate::runtime::buffer::POISON;

/// Received bytes and what they are charged to; given back when the last frame in it is dropped.
pub(crate) struct FrameMemory {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl FrameMemory {
    pub(crate) fn new(bytes: Vec<u8>, charge: Charge) -> Arc<FrameMemory> {
        Arc::new(FrameMemory {
            bytes,
            _charge: charge,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for FrameMemory {
    fn drop(&mut self) {
        if cfg!(debug_assertions) {
            // Whoever still looked at it would see this instead of another request's bytes.
            self.bytes.fill(POISON);
        }
    }
}

/// A request without its length prefix. Cheap to clone, may travel to other cores; the connection
/// holds one until the answer is on the wire.
#[derive(Clone)]
pub struct Frame {
    memory: Arc<FrameMemory>,
    start: usize,
    end: usize,
}

impl Frame {
    pub(crate) fn new(memory: Arc<FrameMemory>, start: usize, end: usize) -> Frame {
        assert!(
            start <= end && end <= memory.bytes.len(),
            "a frame within its memory"
        );
        Frame { memory, start, end }
    }

    /// A frame charged to nobody, for tests and internal requests.
    #[must_use]
    pub fn uncharged(bytes: Vec<u8>) -> Frame {
        let end = bytes.len();
        Frame::new(FrameMemory::new(bytes, Charge::nothing()), 0, end)
    }
}

impl Deref for Frame {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory.bytes[self.start..self.end]
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.len())
    }
}
