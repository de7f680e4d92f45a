//! One executor per core on the core's one ring: tasks, time, files, sockets and wake-ups of other
//! threads meet in a single wait.
//!
//! | queue | turn | what runs in it |
//! |---|---|---|
//! | `Ack` | 1 ms | appends, group commit, wake-ups |
//! | `Network` | 1 ms | connections |
//! | `Control` | 500 us | metadata, sweeps |
//! | `Background` | 500 us, 100 us beside the first two | segment write-behind, retention, compaction, scrub |
//!
//! A round gives every queue a turn, in this order. Between rounds due timers fire and, when some time
//! has passed, the ring gets what was queued for it and gives what has arrived. With nothing runnable
//! the core looks on for its spin time, then hands over what is queued and waits, in one system call,
//! until something arrives, the next timer is due, or another thread wakes it (`wake.rs`).
//!
//! Tasks are detached: they end by themselves or with the process.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_task::Runnable;

use super::bell::Waiters;
use super::blocking::Pools;
use super::core_gate::{Gate, Passage, drain, join_all, panic_text, start_together};
use super::core_id::CoreId;
use super::core_plan::STALL;
pub use super::core_plan::{CorePlan, Queue, Stalls};
use super::ring::Ring;
use super::timers::Timers;
use super::wake::WakeFd;

/// What is queued for the ring waits for other runnable tasks at most this long.
const SUBMIT_AFTER: Duration = Duration::from_micros(200);
/// A turn of the background while acknowledgements or connections have work.
const BACKGROUND_BESIDE: Duration = Duration::from_micros(100);

const QUEUES: [Queue; 4] = [
    Queue::Ack,
    Queue::Network,
    Queue::Control,
    Queue::Background,
];

/// What belongs to one core, found through the thread that runs it.
pub(crate) struct Core {
    id: CoreId,
    ready: [RefCell<VecDeque<Runnable>>; QUEUES.len()],
    timers: Timers,
    ring: Rc<Ring>,
    wake_fd: Arc<WakeFd>,
    waiters: Waiters,
    pools: Rc<Pools>,
    stalls: Cell<Stalls>,
    /// When the turn of the queue that runs is over.
    turn_ends: Cell<Instant>,
    /// The queue that runs gives way to the first two.
    is_patient: Cell<bool>,
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

    pub(crate) fn timers(&self) -> &Timers {
        &self.timers
    }

    fn note_poll(&self, took: Duration) {
        if took >= STALL {
            self.stalls.set(self.stalls.get().with(took));
        }
    }

    fn is_ready(&self) -> bool {
        self.ready.iter().any(|queue| !queue.borrow().is_empty())
    }

    fn is_urgent(&self) -> bool {
        !self.ready[0].borrow().is_empty() || !self.ready[1].borrow().is_empty()
    }

    /// Gives every queue a turn. `now` is when it begins; when it ended.
    fn run_round(&self, mut now: Instant) -> Instant {
        let is_urgent = self.is_urgent();
        for queue in QUEUES {
            let turn = match queue {
                Queue::Ack | Queue::Network => Duration::from_millis(1),
                Queue::Background if is_urgent => BACKGROUND_BESIDE,
                Queue::Control | Queue::Background => Duration::from_micros(500),
            };
            now = self.run_turn(queue, now, turn);
        }
        now
    }

    fn run_turn(&self, queue: Queue, mut now: Instant, turn: Duration) -> Instant {
        let tasks = &self.ready[queue as usize];
        let ends = now + turn;
        self.turn_ends.set(ends);
        self.is_patient
            .set(matches!(queue, Queue::Control | Queue::Background));
        // Each task once: one that yields goes on in the next round.
        let mut most = tasks.borrow().len();
        while most > 0 && now < ends {
            let Some(runnable) = tasks.borrow_mut().pop_front() else {
                break;
            };
            most -= 1;
            runnable.run();
            let before = std::mem::replace(&mut now, Instant::now());
            self.note_poll(now - before);
        }
        now
    }

    /// Runs tasks until `is_done`.
    fn run(&self, is_done: &Cell<bool>, spin: Duration) {
        let mut now = Instant::now();
        let mut submitted = now;
        while !is_done.get() {
            now = self.run_round(now);
            self.take_wakes();
            self.timers.fire(now);
            if self.is_ready() {
                if now - submitted >= SUBMIT_AFTER {
                    self.ring.turn();
                    submitted = now;
                }
            } else if !is_done.get() {
                // Submits as well: one system call for both.
                self.park(spin);
                now = Instant::now();
                self.timers.fire(now);
                submitted = now;
            }
        }
    }

    fn take_wakes(&self) {
        if self.wake_fd.take() {
            self.waiters.wake_rung();
        }
    }

    fn park(&self, spin: Duration) {
        let started = Instant::now();
        while !spin.is_zero() && started.elapsed() < spin {
            std::hint::spin_loop();
            self.ring.turn();
            self.take_wakes();
            if self.is_ready() || self.timers.is_due() {
                return;
            }
        }
        self.wake_fd.begin_parking();
        self.take_wakes();
        if !self.is_ready() {
            self.ring.wait(self.timers.next_in());
        }
        self.wake_fd.end_parking();
        self.take_wakes();
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
    let (runnable, task) =
        async_task::spawn_local(future, move |runnable| schedule(queue, runnable));
    task.detach();
    runnable.schedule();
}

fn schedule(queue: Queue, runnable: Runnable) {
    match try_core() {
        Some(core) => core.ready[queue as usize].borrow_mut().push_back(runnable),
        // The core has ended, and the task with it.
        None => std::mem::forget(runnable),
    }
}

/// Lets everything else that is runnable in this queue run first.
pub async fn yield_now() {
    futures_lite::future::yield_now().await;
}

/// Yields to other queues when this one's turn is over; cheap otherwise. Every loop that may run
/// long calls it.
pub async fn yield_if_needed() {
    let core = core();
    let gives_way = core.is_patient.get() && core.is_urgent();
    if gives_way || Instant::now() >= core.turn_ends.get() {
        yield_now().await;
    }
}

/// The running cores.
pub struct Cores {
    handles: Vec<(CoreId, JoinHandle<()>)>,
}

impl Cores {
    /// Waits until every core's main has ended; names the cores that panicked.
    ///
    /// # Errors
    /// A core panicked or could not run.
    pub fn join(self) -> Result<(), String> {
        join_all(self.handles, |handle| {
            let payload = handle.join().err()?;
            Some(panic_text(&*payload))
        })
    }
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
        std::thread::Builder::new()
            .name(format!("core-{}", plan.core))
            .spawn(move || run_core(plan, pools, &gate, main))
    };
    let handles = start_together(plans, start, |handles| Cores { handles }.join())?;
    Ok(Cores { handles })
}

fn run_core<F, Fut>(plan: CorePlan, pools: Pools, gate: &Gate, main: F)
where
    F: Fn(CoreId) -> Fut,
    Fut: Future<Output = ()> + 'static,
{
    let core = match gate.pass(set_up(plan, pools)) {
        Passage::Run(core) => core,
        Passage::End(_) => {
            CORE.take();
            return;
        }
    };
    let done = Rc::new(Cell::new(false));
    let (main, ended, ring) = (main(plan.core), done.clone(), core.ring.clone());
    spawn(Queue::Network, async move {
        main.await;
        drain(&ring).await;
        ended.set(true);
    });
    let spin = match plan.cpu {
        Some(_) => Duration::from_micros(plan.spin_before_park_us),
        None => Duration::ZERO,
    };
    core.run(&done, spin);
    core.ring.close();
    CORE.take();
}

fn set_up(plan: CorePlan, pools: Pools) -> io::Result<Rc<Core>> {
    if let Some(cpu) = plan.cpu {
        super::thread::pin(cpu)?;
    }
    let wake_fd = Arc::new(WakeFd::new()?);
    let core = Rc::new(Core {
        id: plan.core,
        ready: Default::default(),
        timers: Timers::default(),
        ring: Rc::new(Ring::open(wake_fd.raw())?),
        wake_fd,
        waiters: Waiters::default(),
        pools: Rc::new(pools),
        stalls: Cell::new(Stalls::default()),
        turn_ends: Cell::new(Instant::now()),
        is_patient: Cell::new(false),
    });
    CORE.set(Some(core.clone()));
    Ok(core)
}
