//! Messages between cores. Sending and taking is counted with both ends on one thread; the round trip
//! between two cores is a matter of time alone.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use criterion::Criterion;
use futures_util::FutureExt;
use percolog::runtime::core_id::CoreId;
use percolog::runtime::executor::{CorePlan, start_cores};
use percolog::runtime::mesh::{Inbox, MeshPort, OneshotSender, inbox, mesh, oneshot};

use crate::cases::{Amount, Cases};

/// Of the size of a request to another core.
type Message = [u64; 16];

const CAPACITY: usize = 1024;
/// A message that ends the core it reaches.
const END: Message = [u64::MAX; 16];
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn add(cases: &mut Cases) {
    for (count, what) in [(1, "1 message"), (64, "64 messages at once")] {
        let mut ports = mesh::<Message>(2, CAPACITY).into_iter();
        let (sender, receiver) = (ports.next(), ports.next());
        let sender = sender.expect("the first of two");
        let receiver = receiver.expect("the second of two");
        let mut received = Vec::with_capacity(count);
        let name = format!("mesh: send and receive {what}");
        cases.add(name, Amount::Elements(count), move || {
            received.clear();
            for number in 0..count {
                let sent = sender.try_send(CoreId(1), [number as u64; 16]);
                sent.expect("all were received");
            }
            let receiving = receiver.receive(&mut received, CAPACITY);
            receiving.now_or_never().expect("something is there");
            received.len()
        });
    }
}

/// So many round trips, and whom to tell how long they took.
type Trips = (u64, OneshotSender<Duration>);

/// Measures the way to another core and back. Neither core is pinned or spins: each hop wakes one.
pub(crate) fn measure_round_trip(criterion: &mut Criterion) {
    let plan = |core| CorePlan {
        core: CoreId(core),
        cpu: None,
        spin_before_park_us: 0,
    };
    let (orders, inbox) = inbox::<Trips>(1);
    let ports: Vec<_> = mesh::<Message>(2, CAPACITY).into_iter().map(Some).collect();
    let ports = Arc::new(Mutex::new((ports, Some(inbox))));
    let cores = start_cores(vec![plan(0), plan(1)], move |core| {
        let mut parts = ports.lock().expect("nobody panics with it");
        let port = parts.0[core.index()].take().expect("each core once");
        let inbox = (core == CoreId(0)).then(|| parts.1.take().expect("once"));
        async move {
            match inbox {
                Some(inbox) => travel(&port, &inbox).await,
                None => echo(&port).await,
            }
        }
    });
    let cores = cores.expect("two cores start");
    criterion.bench_function("mesh: round trip between two cores", |bencher| {
        bencher.iter_custom(|trips| {
            let (done, took) = oneshot();
            assert!(
                orders.try_send((trips, done)).is_ok(),
                "one order at a time"
            );
            took.wait(LIMIT).expect("both cores run")
        });
    });
    drop(orders);
    cores.join().expect("both cores end");
}

async fn travel(port: &MeshPort<Message>, inbox: &Inbox<Trips>) {
    let mut received = Vec::new();
    while let Some((trips, done)) = inbox.receive().await {
        let started = Instant::now();
        for trip in 0..trips {
            received.clear();
            let sent = port.try_send(CoreId(1), [trip; 16]);
            sent.expect("one message is on its way");
            port.receive(&mut received, CAPACITY).await;
        }
        done.send(started.elapsed());
    }
    port.try_send(CoreId(1), END)
        .expect("nothing is on its way");
}

async fn echo(port: &MeshPort<Message>) {
    let mut received = Vec::new();
    loop {
        received.clear();
        port.receive(&mut received, CAPACITY).await;
        for (from, message) in &received {
            if *message == END {
                return;
            }
            port.try_send(*from, *message).expect("room for an answer");
        }
    }
}
