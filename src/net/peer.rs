//! Who is at the other end of a connection, and what the session has learned about it.

use core::net::SocketAddr;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// What the service learned about a peer; all empty at first.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Session {
    /// The authenticated principal.
    pub principal: Option<Rc<str>>,
    /// `ClientSoftwareName` of ApiVersions.
    pub software_name: Option<Rc<str>>,
    /// `ClientSoftwareVersion` of ApiVersions.
    pub software_version: Option<Rc<str>>,
    /// When the authentication ends, in wall-clock milliseconds.
    pub expires_ms: Option<i64>,
}

#[derive(Debug)]
struct Facts {
    address: SocketAddr,
    local_address: SocketAddr,
    connection_id: u64,
    listener: u16,
    max_frame_bytes: Cell<usize>,
    session: RefCell<Session>,
}

/// A handle of one connection's peer; clones share the session.
#[derive(Clone, Debug)]
pub struct Peer {
    facts: Rc<Facts>,
}

impl Peer {
    /// A peer without a session yet.
    #[must_use]
    pub fn new(
        address: SocketAddr,
        local_address: SocketAddr,
        connection_id: u64,
        listener: u16,
        max_frame_bytes: usize,
    ) -> Peer {
        let session = RefCell::new(Session::default());
        let max_frame_bytes = Cell::new(max_frame_bytes);
        let facts = Facts {
            address,
            local_address,
            connection_id,
            listener,
            max_frame_bytes,
            session,
        };
        Peer {
            facts: Rc::new(facts),
        }
    }

    /// The other end.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.facts.address
    }

    /// This end.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.facts.local_address
    }

    /// Unique in this process; the accepting core in the upper 16 bits.
    #[must_use]
    pub fn connection_id(&self) -> u64 {
        self.facts.connection_id
    }

    /// Which of the broker's listeners it came through.
    #[must_use]
    pub fn listener(&self) -> u16 {
        self.facts.listener
    }

    /// Largest frame this peer may send from now on.
    #[must_use]
    pub fn max_frame_bytes(&self) -> usize {
        self.facts.max_frame_bytes.get()
    }

    /// Changes that, after authentication.
    pub fn set_max_frame_bytes(&self, bytes: usize) {
        self.facts.max_frame_bytes.set(bytes);
    }

    /// A copy of what is known.
    #[must_use]
    pub fn session(&self) -> Session {
        self.facts.session.borrow().clone()
    }

    /// The principal, if authenticated.
    #[must_use]
    pub fn principal(&self) -> Option<Rc<str>> {
        self.facts.session.borrow().principal.clone()
    }

    /// Changes what is known.
    pub fn update_session(&self, change: impl FnOnce(&mut Session)) {
        change(&mut self.facts.session.borrow_mut());
    }
}
