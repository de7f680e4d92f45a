//! Cores start together or not at all: none runs its main before all of them are set up. At its end a
//! core waits for the disk.

use std::any::Any;
use std::io;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use super::clock;
use super::core_id::CoreId;
use super::core_plan::CorePlan;
use super::ring::Ring;

/// How long the end of a core waits for the disk before it gives its buffers up.
const DRAIN_LIMIT: Duration = Duration::from_secs(30);

/// What a core's thread reports to, and waits at.
pub(super) struct Gate {
    ready: SyncSender<io::Result<()>>,
    may_go: Receiver<()>,
}

impl Gate {
    /// Reports how setting up went; what was set up if this core and all others may run. Blocks the
    /// thread, which has nothing else to do yet.
    pub(super) fn pass<T>(&self, set_up: io::Result<T>) -> Passage<T> {
        match set_up {
            Ok(core) => {
                self.ready.send(Ok(())).ok();
                match self.may_go.recv() {
                    Ok(()) => Passage::Run(core),
                    Err(_) => Passage::End(Some(core)),
                }
            }
            Err(error) => {
                self.ready.send(Err(error)).ok();
                Passage::End(None)
            }
        }
    }
}

/// What a core does next.
pub(super) enum Passage<T> {
    /// Its main.
    Run(T),
    /// Nothing more: another core could not be set up, or this one could not.
    End(Option<T>),
}

/// Starts a thread per plan and lets them go once all are set up. `join` waits for them and names
/// those that panicked.
pub(super) fn start_together<H>(
    plans: Vec<CorePlan>,
    mut start: impl FnMut(CorePlan, Gate) -> io::Result<H>,
    join: impl FnOnce(Vec<(CoreId, H)>) -> Result<(), String>,
) -> io::Result<Vec<(CoreId, H)>> {
    let mut handles = Vec::with_capacity(plans.len());
    let mut gates = Vec::with_capacity(plans.len());
    for plan in plans {
        let (ready, is_ready) = sync_channel(1);
        let (go, may_go) = sync_channel(1);
        handles.push((plan.core, start(plan, Gate { ready, may_go })?));
        gates.push((plan.core, is_ready, go));
    }
    // A core that fails before it can report drops its end, and tells why through its handle.
    let failed = gates
        .iter()
        .find_map(|(core, is_ready, _)| match is_ready.recv() {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(io::Error::new(
                error.kind(),
                format!("core {core}: {error}"),
            )),
            Err(_) => Some(io::Error::other(format!("core {core} did not start"))),
        });
    if let Some(error) = failed {
        drop(gates);
        return match join(handles) {
            Err(why) => Err(io::Error::new(error.kind(), format!("{error}: {why}"))),
            Ok(()) => Err(error),
        };
    }
    for (_, _, go) in gates {
        // Nobody listening means that the core panicked just now; join reports it.
        go.send(()).ok();
    }
    Ok(handles)
}

/// Waits for each core; `problem` is what went wrong with one.
pub(super) fn join_all<H>(
    handles: Vec<(CoreId, H)>,
    problem: impl Fn(H) -> Option<String>,
) -> Result<(), String> {
    let problems: Vec<String> = handles
        .into_iter()
        .filter_map(|(core, handle)| Some(format!("core {core}: {}", problem(handle)?)))
        .collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems.join("; ")),
    }
}

/// The kernel must be done with our buffers before the memory may go.
pub(super) async fn drain(ring: &Rc<Ring>) {
    let started = Instant::now();
    while ring.in_memory_flight() > 0 && started.elapsed() < DRAIN_LIMIT {
        clock::sleep(Duration::from_millis(1)).await;
    }
}

/// What a panic said.
pub(super) fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    format!(
        "panicked: {}",
        text.unwrap_or("with something that is not text")
    )
}
