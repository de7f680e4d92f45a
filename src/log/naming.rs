//! Gives segments their files, many at a time: thousands of logs that begin at once share the calls
//! that make their names durable, as their records share a group of the journal.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::disk::{self, File, Placement};
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::{Promise, promise};

/// Files made in one go; so long does the blocking thread belong to them.
const MOST_AT_ONCE: usize = 1024;

type Waiting = (Placement, Promise<io::Result<File>>);

/// Those of one core and data directory who wait for a file.
#[derive(Default)]
pub(super) struct Naming {
    waiting: RefCell<Vec<Waiting>>,
    is_running: Cell<bool>,
}

impl Naming {
    /// Makes a file; its name, and that of its directory, are durable on return.
    pub(super) async fn place(self: &Rc<Self>, placement: Placement) -> io::Result<File> {
        let (done, placed) = promise();
        self.waiting.borrow_mut().push((placement, done));
        if !self.is_running.replace(true) {
            spawn(Queue::Ack, self.clone().run());
        }
        placed
            .await
            .unwrap_or_else(|| Err(io::Error::other("the core stops")))
    }

    async fn run(self: Rc<Self>) {
        loop {
            let taken: Vec<Waiting> = {
                let mut waiting = self.waiting.borrow_mut();
                let count = waiting.len().min(MOST_AT_ONCE);
                waiting.drain(..count).collect()
            };
            if taken.is_empty() {
                self.is_running.set(false);
                return;
            }
            let (placements, promises): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
            let durably = !is_planted(Breach::NameBeforeDirectorySync);
            match disk::place(placements, durably).await {
                Ok(placed) => {
                    for (done, file) in promises.into_iter().zip(placed) {
                        done.keep(file);
                    }
                }
                Err(error) => {
                    for done in promises {
                        done.keep(Err(io::Error::new(error.kind(), error.to_string())));
                    }
                }
            }
        }
    }
}
