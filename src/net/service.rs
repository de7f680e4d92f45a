//! What a connection asks of the layer above.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::close_reason::CloseReason;
use super::frame::Frame;
use super::peer::Peer;
use crate::runtime::gather::Gather;

/// The meaning of frames.
pub trait Service: 'static {
    /// Whether this frame may be started while earlier answers of the same connection are still
    /// outstanding (a Produce behind Produces). Asked for every frame; all frames in flight must
    /// overlap.
    fn overlaps(&self, frame: &[u8]) -> bool;

    /// First stage: resolves when the order of the request's effects is fixed. It and the later
    /// stage are dropped when the connection ends.
    fn call(self: &Rc<Self>, frame: Frame, peer: &Peer) -> impl Future<Output = Stage>;
}

/// How far a request is after its first stage.
pub enum Stage {
    /// Answered.
    Done(Reply),
    /// Answered when this resolves.
    Later(Pin<Box<dyn Future<Output = Reply>>>),
}

/// What to do for a request, in its turn.
#[derive(Debug)]
pub enum Reply {
    /// Send this, which includes its 4-byte length.
    Send(Gather),
    /// Send nothing (acks=0).
    Nothing,
    /// Close the connection, after the answers before it have been sent.
    Close(CloseReason),
}
