//! All connections of a run, and which of them are lost.

use std::io;

use crate::client::{Failure, connect};
use crate::connection::Connection;
use crate::poller::{Event, Poller};
use crate::schedule::Nanos;

#[derive(Debug)]
struct Socket {
    connection: Connection,
    wants_write: bool,
    lost: Option<String>,
}

/// The connections, by token.
#[derive(Debug)]
pub(crate) struct Sockets {
    poller: Poller,
    sockets: Vec<Socket>,
}

impl Sockets {
    /// None yet.
    pub(crate) fn new() -> io::Result<Sockets> {
        Ok(Sockets {
            poller: Poller::new()?,
            sockets: Vec::new(),
        })
    }

    /// Connects to `address`; its token.
    pub(crate) fn open(&mut self, address: &str) -> Result<usize, Failure> {
        let stream = connect(address)?;
        let token = self.sockets.len();
        let failed = |error: io::Error| format!("{address}: {error}");
        let connection = Connection::new(stream).map_err(failed)?;
        self.poller
            .add(connection.descriptor(), token)
            .map_err(failed)?;
        self.sockets.push(Socket {
            connection,
            wants_write: false,
            lost: None,
        });
        Ok(token)
    }

    /// The connection of a token.
    pub(crate) fn connection(&mut self, token: usize) -> &mut Connection {
        &mut self.sockets[token].connection
    }

    /// Why the connection is of no use any more, if so.
    pub(crate) fn lost(&self, token: usize) -> Option<&str> {
        self.sockets[token].lost.as_deref()
    }

    /// Declares a connection lost.
    pub(crate) fn lose(&mut self, token: usize, reason: impl Into<String>) {
        let socket = &mut self.sockets[token];
        if socket.lost.is_none() {
            socket.lost = Some(reason.into());
            // It may be gone already; either way it is not told of again.
            let _ = self.poller.remove(socket.connection.descriptor());
        }
    }

    /// Writes what is queued, and waits for room if the kernel takes no more.
    pub(crate) fn flush(&mut self, token: usize) {
        let socket = &mut self.sockets[token];
        if socket.lost.is_some() {
            return;
        }
        let mut result = socket.connection.flush();
        let wants_write = socket.connection.has_output();
        if result.is_ok() && wants_write != socket.wants_write {
            socket.wants_write = wants_write;
            let descriptor = socket.connection.descriptor();
            result = self.poller.set_wants_write(descriptor, token, wants_write);
        }
        if let Err(error) = result {
            self.lose(token, error.to_string());
        }
    }

    /// Reads once.
    pub(crate) fn receive(&mut self, token: usize) {
        match self.sockets[token].connection.receive() {
            Ok(true) => {}
            Ok(false) => self.lose(token, "the broker closed the connection"),
            Err(error) => self.lose(token, error.to_string()),
        }
    }

    /// Takes the next whole frame of a connection.
    pub(crate) fn take_frame(&mut self, token: usize) -> Option<std::ops::Range<usize>> {
        match self.sockets[token].connection.take_frame() {
            Ok(frame) => frame,
            Err(error) => {
                self.lose(token, error.to_string());
                None
            }
        }
    }

    /// Waits for events.
    pub(crate) fn wait(&mut self, timeout: Option<Nanos>) -> io::Result<Vec<Event>> {
        self.poller.wait(timeout)
    }
}
