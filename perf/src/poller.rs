//! Waiting for sockets and for points in time.

use std::fmt;
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{Timespec, epoll};

use crate::schedule::{Nanos, SECOND};

/// Sockets told of in one turn.
const EVENTS_MAX: usize = 256;

/// What happened to a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event {
    /// The number it was registered with.
    pub(crate) token: usize,
    /// Something can be read, or reading fails.
    pub(crate) is_readable: bool,
    /// Something can be written.
    pub(crate) is_writable: bool,
}

/// An epoll instance.
pub(crate) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller")
            .field("epoll", &self.epoll)
            .finish_non_exhaustive()
    }
}

fn flags(wants_write: bool) -> epoll::EventFlags {
    match wants_write {
        true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        false => epoll::EventFlags::IN,
    }
}

impl Poller {
    /// Nothing to wait for yet. Also asks the kernel to let this thread sleep no longer than told.
    pub(crate) fn new() -> io::Result<Poller> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        Ok(Poller {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Adds a socket.
    pub(crate) fn add(&self, socket: impl AsFd, token: usize) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::add(&self.epoll, socket, data, flags(false))?)
    }

    /// Tells whether the socket waits for room to write.
    pub(crate) fn set_wants_write(
        &self,
        socket: impl AsFd,
        token: usize,
        wants_write: bool,
    ) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token as u64);
        Ok(epoll::modify(
            &self.epoll,
            socket,
            data,
            flags(wants_write),
        )?)
    }

    /// Removes a socket.
    pub(crate) fn remove(&self, socket: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, socket)?)
    }

    /// Waits for events, but no longer than `timeout`.
    pub(crate) fn wait(&mut self, timeout: Option<Nanos>) -> io::Result<Vec<Event>> {
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: (timeout / SECOND).cast_signed(),
            tv_nsec: (timeout % SECOND).cast_signed(),
        });
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = self.events.iter().map(|event| {
            // A copy, since the structure is packed.
            let (flags, data) = (event.flags, event.data);
            let read = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            Event {
                token: data.u64() as usize,
                is_readable: flags.intersects(read),
                is_writable: flags.contains(epoll::EventFlags::OUT),
            }
        });
        Ok(events.collect())
    }
}
