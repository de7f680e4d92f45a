//! What both executors do.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::core_id::CoreId;
use super::executor::*;
use super::signal::Signal;

pub(crate) fn unpinned(cores: u16) -> Vec<CorePlan> {
    (0..cores)
        .map(|core| CorePlan {
            core: CoreId(core),
            cpu: None,
            spin_before_park_us: 0,
        })
        .collect()
}

/// Runs `main` on that many unpinned cores to its end.
pub(crate) fn on_cores<F, Fut>(cores: u16, main: F)
where
    F: Fn(CoreId) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + 'static,
{
    start_cores(unpinned(cores), main)
        .expect("start")
        .join()
        .expect("cores end well");
}

/// Runs a future that moves things of this thread onto one core.
pub(crate) fn on_core<Fut: Future<Output = ()> + 'static>(
    main: impl FnOnce() -> Fut + Send + 'static,
) {
    let main = Arc::new(std::sync::Mutex::new(Some(main)));
    on_cores(1, move |_| {
        let main = main
            .lock()
            .expect("lock")
            .take()
            .expect("one core takes it once");
        main()
    });
}

#[test]
fn every_core_runs_and_knows_its_name() {
    let seen = Arc::new(AtomicU64::new(0));
    let told = seen.clone();
    on_cores(3, move |core| {
        let told = told.clone();
        async move {
            assert_eq!(current_core(), core);
            told.fetch_add(1 << (8 * core.0), Ordering::Relaxed);
        }
    });
    assert_eq!(seen.load(Ordering::Relaxed), 0x01_01_01);
}

#[test]
fn pinned_and_spinning_cores_run_too() {
    let cpu = crate::runtime::host::usable_cpus()[0];
    let plan = CorePlan {
        core: CoreId(0),
        cpu: Some(cpu),
        spin_before_park_us: 50,
    };
    let cores = start_cores(vec![plan], |_| async {
        let directory = tempfile::tempdir().expect("tempdir");
        let path = directory.path().join("file");
        let file = crate::runtime::disk::create(&path, 0)
            .await
            .expect("create");
        let mut block = crate::runtime::buffer::AppendBuf::allocate(4096);
        block.append(&[7; 4096]);
        let durable = crate::runtime::disk::Durability::Durable;
        file.write(0, block.whole(), durable).await.expect("write");
    });
    cores.expect("start").join().expect("end");
}

#[test]
fn spawned_tasks_of_every_queue_run() {
    on_core(|| async {
        let queues = [
            Queue::Ack,
            Queue::Network,
            Queue::Control,
            Queue::Background,
        ];
        let left = Rc::new(Cell::new(40));
        let done = Rc::new(Signal::default());
        for index in 0..40 {
            let (left, done) = (left.clone(), done.clone());
            spawn(queues[index % queues.len()], async move {
                yield_now().await;
                yield_if_needed().await;
                left.set(left.get() - 1);
                done.raise();
            });
        }
        while left.get() > 0 {
            done.raised().await;
        }
    });
}

#[test]
fn a_panic_is_reported_by_core_and_text() {
    let cores = start_cores(unpinned(2), |core| async move {
        assert_ne!(core, CoreId(1), "planted");
    });
    let problem = cores.expect("start").join().expect_err("core 1 panicked");
    assert!(
        problem.contains("core 1") && problem.contains("planted"),
        "{problem}"
    );
}

#[test]
fn a_core_that_cannot_be_pinned_fails_the_start() {
    let mut plans = unpinned(2);
    plans[1].cpu = Some(100_000);
    assert!(start_cores(plans, |_| async { panic!("must not run") }).is_err());
}

#[test]
fn a_long_poll_is_counted_as_a_stall() {
    on_core(|| async {
        let done = Rc::new(Signal::default());
        let finished = done.clone();
        let waiting = done.raised();
        spawn(Queue::Control, async move {
            let started = Instant::now();
            while started.elapsed() < 2 * super::core_plan::STALL {
                std::hint::spin_loop();
            }
            finished.raise();
        });
        waiting.await;
        yield_now().await;
        let stalls = stalls();
        assert_eq!(stalls.count, 1);
        assert!(stalls.longest_us >= 20_000 && stalls.total_us == stalls.longest_us);
    });
}

/// More waits than the kernel takes in one go, and behind them a write: it must not stay behind while
/// the core sleeps.
#[test]
fn waits_that_fill_the_ring_keep_nothing_behind() {
    const WAITS: usize = 1200;
    on_core(|| async {
        let (socket, other_end) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let socket = Arc::new(std::os::fd::OwnedFd::from(socket));
        let left = Rc::new(Cell::new(WAITS));
        let done = Rc::new(Signal::default());
        for _ in 0..WAITS {
            let (socket, left, done) = (socket.clone(), left.clone(), done.clone());
            spawn(Queue::Network, async move {
                let ring = super::executor::core().ring().clone();
                ring.readiness(socket, libc::POLLIN).await.expect("a wait");
                left.set(left.get() - 1);
                done.raise();
            });
        }
        spawn(Queue::Background, async move {
            let directory = tempfile::tempdir().expect("tempdir");
            let path = directory.path().join("file");
            let file = super::disk::create(&path, 0).await.expect("create");
            let mut block = super::buffer::AppendBuf::allocate(4096);
            block.append(&[7; 4096]);
            let durable = super::disk::Durability::Durable;
            file.write(0, block.whole(), durable).await.expect("write");
            // Only now is there anything for the others.
            drop(other_end);
        });
        let all = async {
            while left.get() > 0 {
                done.raised().await;
            }
            true
        };
        let too_long = async {
            super::clock::sleep(std::time::Duration::from_secs(30)).await;
            false
        };
        assert!(futures_lite::future::or(all, too_long).await, "stuck");
    });
}
