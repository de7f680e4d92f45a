//! SIGINT and SIGTERM as a wish that the command looks at, so that it can end in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use crate::runtime::host;

use super::failure::Failure;

/// Exit code of a process that SIGINT ended, as shells give it.
const EXIT_INTERRUPTED: i32 = 130;

/// Whether the process was told to stop.
pub(crate) struct Termination {
    requested: Arc<AtomicBool>,
    wake: Receiver<()>,
}

impl Termination {
    /// From now on. Whoever tells a second time does not wait for order.
    pub(crate) fn watch() -> Result<Termination, Failure> {
        let requested = Arc::new(AtomicBool::new(false));
        let (sender, wake) = channel();
        let seen = Arc::clone(&requested);
        let act = move |_: &'static str| {
            if seen.swap(true, Ordering::SeqCst) {
                std::process::exit(EXIT_INTERRUPTED);
            }
            // Nobody waits when the command is already ending.
            let _ = sender.send(());
        };
        host::block_termination_signals()
            .wait_for_termination(act)
            .map_err(|error| Failure::Local(format!("no thread for signals: {error}")))?;
        Ok(Termination { requested, wake })
    }

    /// Whether it was told to.
    pub(crate) fn is_requested(&self) -> bool {
        self.requested.load(Ordering::SeqCst)
    }

    /// Waits for that, and says whether it came.
    pub(crate) fn wait(&self, limit: Duration) -> bool {
        match self.wake.recv_timeout(limit) {
            Ok(()) => true,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => self.is_requested(),
        }
    }
}
