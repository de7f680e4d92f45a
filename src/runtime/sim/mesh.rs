//! Queues between cores of the simulated machine; see the real `mesh.rs` for what the names mean.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::core_id::CoreId;
use super::signal::Signal;

struct Mailbox<T> {
    from: Vec<VecDeque<T>>,
    arrived: Rc<Signal>,
}

/// One core's end of the mesh.
pub struct MeshPort<T> {
    core: CoreId,
    capacity: usize,
    mailboxes: Rc<Vec<RefCell<Mailbox<T>>>>,
}

/// A bounded queue per ordered pair of cores.
#[must_use]
pub fn mesh<T: Send + 'static>(cores: usize, capacity: usize) -> Vec<MeshPort<T>> {
    let mailbox = |_| {
        let from = (0..cores).map(|_| VecDeque::new()).collect();
        RefCell::new(Mailbox {
            from,
            arrived: Rc::default(),
        })
    };
    let mailboxes = Rc::new((0..cores).map(mailbox).collect::<Vec<_>>());
    let port = |core| MeshPort {
        core: CoreId(core as u16),
        capacity,
        mailboxes: mailboxes.clone(),
    };
    (0..cores).map(port).collect()
}

impl<T> MeshPort<T> {
    /// The core this end belongs to.
    #[must_use]
    pub fn core(&self) -> CoreId {
        self.core
    }

    /// Sends, or gives the message back when the queue is full.
    pub fn try_send(&self, to: CoreId, message: T) -> Result<(), T> {
        let arrived = {
            let mut mailbox = self.mailboxes[to.index()].borrow_mut();
            let queue = &mut mailbox.from[self.core.index()];
            if queue.len() >= self.capacity {
                return Err(message);
            }
            queue.push_back(message);
            mailbox.arrived.clone()
        };
        arrived.raise();
        Ok(())
    }

    /// Waits for messages and takes at most `most`, fairly over the senders.
    pub async fn receive(&self, into: &mut Vec<(CoreId, T)>, most: usize) {
        loop {
            let arrived = self.mailboxes[self.core.index()].borrow().arrived.clone();
            let wait = arrived.raised();
            self.take(into, most);
            if !into.is_empty() {
                return;
            }
            wait.await;
        }
    }

    fn take(&self, into: &mut Vec<(CoreId, T)>, most: usize) {
        let mut mailbox = self.mailboxes[self.core.index()].borrow_mut();
        let mut found = true;
        while found && into.len() < most {
            found = false;
            for (from, queue) in mailbox.from.iter_mut().enumerate() {
                if into.len() < most
                    && let Some(message) = queue.pop_front()
                {
                    into.push((CoreId(from as u16), message));
                    found = true;
                }
            }
        }
    }
}
