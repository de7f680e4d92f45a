//! Tasks, time and chance of one simulated machine.
//!
//! A run picks a random ready task, polls it, and when none is ready moves the clock to the next
//! event. Everything random comes from one seed, so a failing run is repeated by its seed.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use super::disk_model::DiskModel;
use crate::runtime::breach::Breach;
use crate::runtime::core_id::CoreId;

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// The power went out: the run is over and its memory is gone.
#[derive(Debug, PartialEq, Eq)]
pub struct PowerCut;

/// A task may be polled this often in one run before the run counts as a livelock.
const MOST_POLLS: u64 = 5_000_000;

thread_local! {
    static CURRENT: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// The world that runs on this thread.
///
/// # Panics
/// Outside [`World::run`]: code that needs the machine was called from plain test code.
#[must_use]
pub fn current() -> Rc<World> {
    CURRENT
        .with(|world| world.borrow().clone())
        .expect("a simulated world is running")
}

/// One simulated machine.
pub struct World {
    seed: u64,
    random: RefCell<fastrand::Rng>,
    now_us: Cell<u64>,
    tasks: RefCell<Vec<Option<(CoreId, Task)>>>,
    ready: Arc<Mutex<Vec<usize>>>,
    timers: RefCell<BinaryHeap<Reverse<(u64, u64)>>>,
    timer_wakers: RefCell<std::collections::BTreeMap<(u64, u64), Waker>>,
    next_timer: Cell<u64>,
    core: Cell<CoreId>,
    disk: RefCell<DiskModel>,
    planted: Cell<Option<Breach>>,
}

struct TaskWaker {
    task: usize,
    ready: Arc<Mutex<Vec<usize>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        let mut ready = self
            .ready
            .lock()
            .expect("no task panics while it holds this");
        if !ready.contains(&self.task) {
            ready.push(self.task);
        }
    }
}

impl World {
    /// A machine with the given disk; equal seeds and disks give equal runs.
    #[must_use]
    pub fn new(seed: u64, disk: DiskModel) -> Rc<World> {
        Rc::new(World {
            seed,
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            now_us: Cell::new(1),
            tasks: RefCell::new(Vec::new()),
            ready: Arc::new(Mutex::new(Vec::new())),
            timers: RefCell::new(BinaryHeap::new()),
            timer_wakers: RefCell::default(),
            next_timer: Cell::new(0),
            core: Cell::new(CoreId(0)),
            disk: RefCell::new(disk),
            planted: Cell::new(None),
        })
    }

    /// The seed this world was made with.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Plants one breach of the crash rules.
    pub fn plant(&self, breach: Breach) {
        self.planted.set(Some(breach));
    }

    pub(crate) fn planted(&self) -> Option<Breach> {
        self.planted.get()
    }

    /// Runs `main` and everything it spawns until `main` is done or the power is cut.
    ///
    /// # Panics
    /// When nothing can run any more although `main` is not done, or when it runs for ever.
    pub fn run<T: 'static>(
        self: &Rc<Self>,
        main: impl Future<Output = T> + 'static,
    ) -> Result<T, PowerCut> {
        let result: Rc<RefCell<Option<T>>> = Rc::default();
        let slot = result.clone();
        let guard = Entered::enter(self.clone());
        self.spawn(CoreId(0), async move {
            let value = main.await;
            *slot.borrow_mut() = Some(value);
        });
        for _ in 0..MOST_POLLS {
            if self.disk.borrow().is_cut() {
                break;
            }
            if result.borrow().is_some() {
                drop(guard);
                return Ok(result.borrow_mut().take().expect("checked above"));
            }
            if !self.turn() && !self.advance() {
                panic!("seed {}: every task waits and no event is due", self.seed);
            }
        }
        assert!(
            self.disk.borrow().is_cut(),
            "seed {}: the run does not end",
            self.seed
        );
        Err(PowerCut)
    }

    /// Runs plain code that needs the machine (recovery, offline tools).
    pub fn enter<T>(self: &Rc<Self>, code: impl FnOnce() -> T) -> T {
        let _guard = Entered::enter(self.clone());
        code()
    }

    /// The disk as it is found after the power came back; the world is spent.
    #[must_use]
    pub fn disk_after_power_cut(self: &Rc<Self>) -> DiskModel {
        self.end();
        let mut disk = self.disk.replace(DiskModel::new());
        disk.power_cut(&mut self.random.borrow_mut());
        disk
    }

    /// The disk as it is after the process ended while the machine went on (`kill -9`).
    #[must_use]
    pub fn disk_after_exit(self: &Rc<Self>) -> DiskModel {
        self.end();
        let mut disk = self.disk.replace(DiskModel::new());
        disk.process_exit();
        disk
    }

    /// Drops every task. Tasks hold the world and the world holds the tasks, so this also breaks
    /// the cycle; their destructors may still look for the world they belong to.
    fn end(self: &Rc<Self>) {
        let _guard = Entered::enter(self.clone());
        let tasks = std::mem::take(&mut *self.tasks.borrow_mut());
        drop(tasks);
    }

    /// Access to the disk, for tests that damage it.
    pub fn with_disk<T>(&self, access: impl FnOnce(&mut DiskModel, &mut fastrand::Rng) -> T) -> T {
        access(&mut self.disk.borrow_mut(), &mut self.random.borrow_mut())
    }

    pub(crate) fn spawn(&self, core: CoreId, future: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let task = tasks.len();
        tasks.push(Some((core, Box::pin(future))));
        self.ready
            .lock()
            .expect("no task panics while it holds this")
            .push(task);
    }

    pub(crate) fn core(&self) -> CoreId {
        self.core.get()
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.now_us.get()
    }

    pub(crate) fn random_u64(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// A future that is ready at `due_us`.
    pub(crate) fn until(self: &Rc<Self>, due_us: u64) -> Until {
        let number = self.next_timer.get();
        self.next_timer.set(number + 1);
        Until {
            world: self.clone(),
            key: (due_us, number),
        }
    }

    /// Polls one random ready task; false when there is none.
    fn turn(&self) -> bool {
        let task = {
            let mut ready = self
                .ready
                .lock()
                .expect("no task panics while it holds this");
            if ready.is_empty() {
                return false;
            }
            let pick = self.random.borrow_mut().usize(..ready.len());
            ready.swap_remove(pick)
        };
        let Some((core, mut future)) = self.tasks.borrow_mut()[task].take() else {
            return true;
        };
        self.core.set(core);
        let waker = Waker::from(Arc::new(TaskWaker {
            task,
            ready: self.ready.clone(),
        }));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            self.tasks.borrow_mut()[task] = Some((core, future));
        }
        true
    }

    /// Moves the clock to the next timer and wakes who waits for it; false when there is none.
    fn advance(&self) -> bool {
        let Some(Reverse(key)) = self.timers.borrow_mut().pop() else {
            return false;
        };
        self.now_us.set(self.now_us.get().max(key.0));
        let waker = self.timer_wakers.borrow_mut().remove(&key);
        if let Some(waker) = waker {
            waker.wake();
        }
        true
    }
}

/// Resolves when the virtual clock reaches its time.
pub(crate) struct Until {
    world: Rc<World>,
    key: (u64, u64),
}

impl Future for Until {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.world.now_us() >= self.key.0 {
            return Poll::Ready(());
        }
        let known = self
            .world
            .timer_wakers
            .borrow_mut()
            .insert(self.key, context.waker().clone())
            .is_some();
        if !known {
            self.world.timers.borrow_mut().push(Reverse(self.key));
        }
        Poll::Pending
    }
}

struct Entered {
    before: Option<Rc<World>>,
}

impl Entered {
    fn enter(world: Rc<World>) -> Entered {
        Entered {
            before: CURRENT.with(|current| current.replace(Some(world))),
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.before.take();
        CURRENT.with(|current| *current.borrow_mut() = before);
    }
}
