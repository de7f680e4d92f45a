//! One request on its way through a handler.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use super::dispatch::Api;
use crate::net::close_reason::CloseReason;
use crate::net::frame::Frame;
use crate::net::peer::Peer;
use crate::net::service::{Reply, Stage};
use crate::runtime::gather::Gather;
use crate::wire::codec::{Reader, Writer};
use crate::wire::frame;
use crate::wire::message::{Request, Response};

/// A request whose header was understood and whose API is served.
pub(super) struct Call {
    pub(super) frame: Frame,
    pub(super) peer: Peer,
    pub(super) version: i16,
    pub(super) correlation_id: i32,
    /// Where in the frame the message begins.
    pub(super) body: usize,
}

/// The connection is closed instead of answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused(pub(super) CloseReason);

/// What a handler makes of a call.
pub(super) type Handled = Result<Reply, Refused>;

/// How a handler starts.
pub(super) enum Started {
    /// The order of its effects is fixed.
    Stage(Stage),
    /// It is when this resolves.
    Starting(Pin<Box<dyn Future<Output = Stage>>>),
}

impl Call {
    /// The message; it borrows from the frame.
    pub(super) fn request<'a, Q: Request<'a>>(&'a self) -> Result<Q, Refused> {
        let mut reader = Reader::new(&self.frame[self.body..]);
        Q::decode(&mut reader, self.version).map_err(|_| Refused(CloseReason::InvalidRequest))
    }

    /// The answer as it goes to the client. Records are inline.
    pub(super) fn reply<'a, R: Response<'a>>(&self, response: &R) -> Reply {
        let mut writer = Writer::new();
        frame::encode_response(&mut writer, self.version, self.correlation_id, response);
        let (head, gaps) = writer.into_parts();
        assert!(
            gaps.is_empty(),
            "detached records need somebody to fill them"
        );
        Reply::Send(Gather::owned(head))
    }
}

/// Starts a handler that need not fix an order: nothing overlaps with it.
pub(super) fn later<F>(
    handle: impl FnOnce(Rc<Api>, Call) -> F,
    api: &Rc<Api>,
    call: Call,
) -> Started
where
    F: Future<Output = Handled> + 'static,
{
    let handled = handle(api.clone(), call);
    Started::Stage(Stage::Later(Box::pin(
        async move { settled(handled.await) },
    )))
}

/// What the connection does with what a handler made.
pub(super) fn settled(handled: Handled) -> Reply {
    handled.unwrap_or_else(|Refused(reason)| Reply::Close(reason))
}

/// Refuses requests that name more than they may.
pub(super) fn check_count(count: usize, most: usize) -> Result<(), Refused> {
    if count > most {
        return Err(Refused(CloseReason::RefusedByService));
    }
    Ok(())
}

/// A time from a client, which may be negative.
pub(super) fn duration_ms(timeout_ms: i32) -> u64 {
    u64::try_from(timeout_ms).unwrap_or(0)
}
