//! System calls that block (open, rename, unlink, directory sync), off the data cores.
//!
//! Two threads per core: an *urgent* one for what a segment roll waits for, a *bulk* one for
//! removals and closes. They are started before the cores are pinned, so they run anywhere.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::bell::Bell;
use super::clock;

/// Jobs one thread holds; beyond it callers wait.
const MAX_QUEUED_JOBS: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// One thread for blocking calls.
pub(crate) struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    pub(crate) fn start(name: String) -> io::Result<Pool> {
        let (sender, receiver) = sync_channel(MAX_QUEUED_JOBS);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || work(&receiver))?;
        Ok(Pool { jobs: sender })
    }

    /// Runs `call` on the thread and resolves on the calling core. A call that was handed over is
    /// made whether or not somebody still waits for it.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let answer = Arc::new(Answer {
            value: Mutex::new(None),
            bell: Bell::new(),
        });
        let theirs = answer.clone();
        let mut job: Job = Box::new(move || {
            let result = catch_unwind(AssertUnwindSafe(call))
                .unwrap_or_else(|_| Err(io::Error::other("a blocking call panicked")));
            *theirs.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            theirs.bell.ring();
        });
        while let Err(back) = self.try_hand_over(job) {
            job = back;
            clock::sleep(Duration::from_millis(1)).await;
        }
        let filled = || {
            answer
                .value
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .is_some()
        };
        answer.bell.rung(filled).await;
        let mut value = answer.value.lock().unwrap_or_else(PoisonError::into_inner);
        value
            .take()
            .expect("the bell rang after the answer was there")
    }

    /// Hands a job over that nobody waits for, or gives it back when the queue is full.
    pub(crate) fn try_hand_over(&self, job: Job) -> Result<(), Job> {
        match self.jobs.try_send(job) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(job)) => Err(job),
            Err(TrySendError::Disconnected(_)) => {
                unreachable!("the thread lives as long as its sender and catches panics")
            }
        }
    }
}

struct Answer<T> {
    value: Mutex<Option<io::Result<T>>>,
    bell: Arc<Bell>,
}

fn work(jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        // A job without a waiter has nobody to tell; the thread must outlive it.
        drop(catch_unwind(AssertUnwindSafe(job)));
    }
}

/// The two threads of one core.
pub(crate) struct Pools {
    /// For what somebody waits for: create, open, rename, directory sync.
    pub(crate) urgent: Pool,
    /// For removals and closes.
    pub(crate) bulk: Pool,
}

impl Pools {
    pub(crate) fn start(core: super::core_id::CoreId) -> io::Result<Pools> {
        Ok(Pools {
            urgent: Pool::start(format!("urgent-{core}"))?,
            bulk: Pool::start(format!("bulk-{core}"))?,
        })
    }
}
