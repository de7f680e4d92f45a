//! With the feature `glommio`: one pinned glommio executor per core, and the task queues its time is shared between.
//!
//! | queue | shares | latency | what runs in it |
//! |---|---|---|---|
//! | `Ack` | 1000 | matters, 1 ms | appends, group commit, wake-ups, submission |
//! | `Network` | 1000 | matters, 2 ms | connections |
//! | `Control` | 200 | 10 ms | metadata, heartbeats, sweeps |
//! | `Background` | 50 | 10 ms | segment write-behind, retention, compaction, scrub |
//!
//! While a queue is active glommio preempts the running one after its latency, provided that yields.
//! Tasks are detached: dropping a pending one would leak it, so they are told to stop instead.
//!
//! **The heartbeat.** glommio 0.9.0 loses wake-ups: when its preemption timer fires between its
//! being armed and the first look at the queues (the thread was off its CPU for that long), the
//! executor takes "preempted before anything ran" for "nothing to run" and parks with runnable
//! tasks. Measured with a busy neighbour: once in about 10^4 wake-ups. Any later event gets it
//! going again, so every core has timers that see to one: often while the core is active, rarely
//! while it is idle. A timer whose own wake-up is lost is not armed again until something else comes,
//! and a thread that was away for long finds several expired: hence a ladder of them, each step so
//! much slower that the next one is still to come. They are armed before a core can park for the
//! first time; until then the preemption timer is as good as none.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use glommio::{
    ExecutorJoinHandle, GlommioError, Latency, LocalExecutorBuilder, Placement, Shares,
    TaskQueueHandle,
};

use super::bell::Waiters;
use super::blocking::Pools;
use super::core_gate::{Gate, Passage, drain, join_all, panic_text, start_together};
use super::core_id::CoreId;
use super::core_plan::STALL;
pub use super::core_plan::{CorePlan, Queue, Stalls};
use super::ring::Ring;
use super::wake::{WakeFd, WatchEnd, watch};

/// Longest turn of a queue that can wait.
const PATIENT: Latency = Latency::Matters(Duration::from_millis(10));
/// Of glommio's default queue, in which a core starts and ends; the file head says why so long.
const PREEMPT_TIMER: Duration = Duration::from_secs(3600);
/// glommio's own registered buffers; we use none of them beyond wake-ups.
const GLOMMIO_MEMORY_BYTES: usize = 64 * 1024;
/// Bounds of the fastest heartbeat's period: what a lost wake-up costs, active and idle.
const HEARTBEAT_ACTIVE: Duration = Duration::from_millis(2);
const HEARTBEAT_IDLE: Duration = Duration::from_millis(64);
/// Periods of the slower ones.
const HEARTBEATS_SLOW: [Duration; 3] = [
    Duration::from_millis(128),
    Duration::from_secs(1),
    Duration::from_secs(8),
];

const QUEUES: [(Queue, usize, Latency, &str); 4] = [
    (
        Queue::Ack,
        1000,
        Latency::Matters(Duration::from_millis(1)),
        "ack",
    ),
    (
        Queue::Network,
        1000,
        Latency::Matters(Duration::from_millis(2)),
        "network",
    ),
    (Queue::Control, 200, PATIENT, "control"),
    (Queue::Background, 50, PATIENT, "background"),
];

/// What belongs to one core, found through the thread that runs it.
pub(crate) struct Core {
    id: CoreId,
    queues: [TaskQueueHandle; QUEUES.len()],
    ring: Rc<Ring>,
    wake_fd: Arc<WakeFd>,
    waiters: Rc<Waiters>,
    pools: Rc<Pools>,
    stalls: Cell<Stalls>,
    polls: Cell<u64>,
}

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

pub(crate) fn try_core() -> Option<Rc<Core>> {
    // During the thread's own teardown there is no core any more.
    CORE.try_with(|core| core.borrow().clone()).ok().flatten()
}

pub(crate) fn core() -> Rc<Core> {
    try_core().expect("called outside of a core")
}

impl Core {
    pub(crate) fn ring(&self) -> &Rc<Ring> {
        &self.ring
    }

    pub(crate) fn wake_fd(&self) -> &Arc<WakeFd> {
        &self.wake_fd
    }

    pub(crate) fn waiters(&self) -> &Waiters {
        &self.waiters
    }

    pub(crate) fn pools(&self) -> &Rc<Pools> {
        &self.pools
    }

    fn note_poll(&self, took: Duration) {
        self.polls.set(self.polls.get() + 1);
        if took >= STALL {
            self.stalls.set(self.stalls.get().with(took));
        }
    }
}

/// The core of the calling thread.
///
/// # Panics
/// Outside of a core, like every free function of this folder that acts on one.
#[must_use]
pub fn current_core() -> CoreId {
    core().id
}

/// The long polls of this core so far.
#[must_use]
pub fn stalls() -> Stalls {
    core().stalls.get()
}

/// Runs `future` on this core. It is never cancelled; it ends by itself or with the process.
pub fn spawn(queue: Queue, future: impl Future<Output = ()> + 'static) {
    let core = core();
    let handle = core.queues[queue as usize];
    glommio::spawn_local_into(
        Measured {
            future,
            core: core.clone(),
        },
        handle,
    )
    .expect("the core's queues live as long as the core")
    .detach();
}

/// Lets everything else that is runnable in this queue run first.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Yields to other queues when this one's turn is over; cheap otherwise. Every loop that may run
/// long calls it.
pub async fn yield_if_needed() {
    glommio::yield_if_needed().await;
}

/// Measures each poll of a task.
struct Measured<F> {
    future: F,
    core: Rc<Core>,
}

impl<F: Future<Output = ()>> Future for Measured<F> {
    type Output = ();

    #[allow(unsafe_code)]
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // SAFETY: `future` is never moved out of the pinned `Measured`, which has no `Drop` of its
        // own and is `Unpin` only when `future` is.
        let this = unsafe { self.get_unchecked_mut() };
        let started = Instant::now();
        // SAFETY: as above.
        let outcome = unsafe { Pin::new_unchecked(&mut this.future) }.poll(context);
        this.core.note_poll(started.elapsed());
        outcome
    }
}

/// The running cores.
pub struct Cores {
    handles: Vec<(CoreId, ExecutorJoinHandle<()>)>,
}

impl Cores {
    /// Waits until every core's main has ended; names the cores that panicked.
    ///
    /// # Errors
    /// A core panicked or could not run.
    pub fn join(self) -> Result<(), String> {
        join_all(self.handles, |handle| handle.join().err().map(describe))
    }
}

fn describe(error: GlommioError<()>) -> String {
    use glommio::BuilderErrorKind::ThreadPanic;
    let GlommioError::BuilderError(ThreadPanic(payload)) = error else {
        return error.to_string();
    };
    panic_text(&*payload)
}

/// Starts one thread per plan. `main` runs on all of them, and only once all of them are up; a
/// core ends when its main has returned and the disk is done with its buffers.
///
/// # Errors
/// When a core cannot be set up; then none runs.
pub fn start_cores<F, Fut>(plans: Vec<CorePlan>, main: F) -> io::Result<Cores>
where
    F: Fn(CoreId) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let start = |plan: CorePlan, gate| {
        let pools = Pools::start(plan.core)?;
        let main = main.clone();
        builder(plan)
            .spawn(move || run_core(plan, pools, gate, main))
            .map_err(io::Error::from)
    };
    let handles = start_together(plans, start, |handles| Cores { handles }.join())?;
    Ok(Cores { handles })
}

fn builder(plan: CorePlan) -> LocalExecutorBuilder {
    let placement = plan.cpu.map_or(Placement::Unbound, Placement::Fixed);
    let builder = LocalExecutorBuilder::new(placement)
        .name(&format!("core-{}", plan.core))
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .preempt_timer(PREEMPT_TIMER);
    match plan.spin_before_park_us {
        0 => builder,
        spin_us => builder.spin_before_park(Duration::from_micros(spin_us)),
    }
}

async fn run_core<F, Fut>(plan: CorePlan, pools: Pools, gate: Gate, main: F)
where
    F: Fn(CoreId) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let end = Rc::new(WatchEnd::default());
    let core = match gate.pass(set_up(plan, pools, &end)) {
        Passage::Run(core) => {
            let _armed = arm_first_heartbeats().await;
            let main = Measured {
                future: main(plan.core),
                core: core.clone(),
            };
            pin!(main).await;
            drain(&core.ring).await;
            core
        }
        Passage::End(Some(core)) => core,
        Passage::End(None) => return,
    };
    end.end(&core.wake_fd).await;
    core.ring.close();
    yield_now().await;
    CORE.take();
}

fn set_up(plan: CorePlan, pools: Pools, end: &Rc<WatchEnd>) -> io::Result<Rc<Core>> {
    let wake_fd = Arc::new(WakeFd::new()?);
    let spins = plan.cpu.is_some() && plan.spin_before_park_us > 0;
    let ring = Rc::new(Ring::open(wake_fd.raw(), spins)?);
    let executor = glommio::executor();
    let core = Rc::new(Core {
        id: plan.core,
        queues: QUEUES.map(|(_, shares, latency, name)| {
            executor.create_task_queue(Shares::Static(shares), latency, name)
        }),
        ring: ring.clone(),
        wake_fd: wake_fd.clone(),
        waiters: Rc::new(Waiters::default()),
        pools: Rc::new(pools),
        stalls: Cell::new(Stalls::default()),
        polls: Cell::new(0),
    });
    CORE.set(Some(core.clone()));
    glommio::spawn_local(heartbeat(core.clone())).detach();
    for period in HEARTBEATS_SLOW {
        glommio::spawn_local(slow_heartbeat(core.clone(), period)).detach();
    }
    spawn(Queue::Ack, ring.clone().flush_turns());
    spawn(
        Queue::Ack,
        watch(wake_fd, ring, core.waiters.clone(), end.clone()),
    );
    Ok(core)
}

/// See the file head. Not measured like other tasks: it must not take itself for activity.
async fn heartbeat(core: Rc<Core>) {
    let mut period = HEARTBEAT_ACTIVE;
    while !core.ring.is_closing() {
        let before = core.polls.get();
        super::clock::sleep(period).await;
        period = if core.polls.get() == before {
            (2 * period).min(HEARTBEAT_IDLE)
        } else {
            HEARTBEAT_ACTIVE
        };
    }
}

async fn slow_heartbeat(core: Rc<Core>, period: Duration) {
    while !core.ring.is_closing() {
        super::clock::sleep(period).await;
    }
}

/// Arms a timer for each heartbeat now: a core may park before it has polled these for the first time.
async fn arm_first_heartbeats() -> Vec<Pin<Box<dyn Future<Output = ()>>>> {
    let mut armed: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
    for period in [HEARTBEAT_ACTIVE].into_iter().chain(HEARTBEATS_SLOW) {
        let mut timer = Box::pin(super::clock::sleep(period));
        futures_lite::future::poll_once(timer.as_mut()).await;
        armed.push(timer);
    }
    armed
}
