//! `make micro`: what functions on the two roads cost, in time (criterion) and in instructions
//! (callgrind, with `--instructions`; perf/instructions.sh wraps it).
//!
//! Every case is one closure that does a unit of work, and both ways of measuring run the same
//! closures, on a core of the runtime as in the broker. All input is made by formulas, so that
//! instructions are the same in every run.

mod buffer;
mod cases;
mod codec;
mod fetch;
mod index;
mod instructions;
mod journal;
mod ledger;
mod mesh;
mod records;

use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use criterion::{Criterion, Throughput};
use percolog::log::recovery::{RecoveredCore, recover};
use percolog::runtime::core_id::CoreId;
use percolog::runtime::executor::{CorePlan, Queue, spawn, start_cores, yield_now};

use cases::{Amount, Case, Cases};

fn main() -> ExitCode {
    // Cargo says `--bench` to every benchmark.
    let arguments = std::env::args().skip(1).filter(|word| word != "--bench");
    let arguments: Vec<String> = arguments.collect();
    match arguments.first().map(String::as_str) {
        Some("--instructions") => return instructions::count(&arguments[1..]),
        Some(instructions::COUNTED) => on_a_core(instructions::run_counted),
        _ => {
            on_a_core(|cases| measure_time(&mut criterion(), cases));
            mesh::measure_round_trip(&mut criterion());
            criterion().final_summary();
        }
    }
    ExitCode::SUCCESS
}

/// Short, since time is for information here: half a minute more says little more on a busy machine.
fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .nresamples(10_000)
        .configure_from_args()
}

fn measure_time(criterion: &mut Criterion, cases: &mut [Case]) {
    for case in cases {
        let mut group = criterion.benchmark_group(subject(&case.name));
        group.throughput(match case.amount {
            Amount::Bytes(bytes) => Throughput::Bytes(bytes as u64),
            Amount::Elements(elements) => Throughput::Elements(elements as u64),
        });
        let unit = case.name.split_once(": ").map_or("", |(_, unit)| unit);
        group.bench_function(unit, |bencher| bencher.iter(|| (case.run)()));
        group.finish();
    }
}

/// What stands before the colon.
fn subject(name: &str) -> &str {
    name.split_once(": ").map_or(name, |(subject, _)| subject)
}

/// Makes all cases on a core of their own and hands them to `measure`, which keeps that core busy as
/// long as it likes: nothing else is to run there.
fn on_a_core(measure: impl Fn(&mut [Case]) + Clone + Send + 'static) {
    // Not in memory: the broker writes past the page cache.
    let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory in target");
    let path = data.path().to_owned();
    let recovered = recover(&path, 1, |_| 0).expect("nothing to recover").0;
    let recovered = Arc::new(Mutex::new(recovered));
    let plan = CorePlan {
        core: CoreId(0),
        cpu: None,
        spin_before_park_us: 0,
    };
    let cores = start_cores(vec![plan], move |_| {
        let recovered = recovered.lock().expect("nobody panics with it").remove(0);
        let (path, measure) = (path.clone(), measure.clone());
        async move { measure_all(&path, recovered, measure).await }
    });
    let ended = cores.expect("a core starts").join();
    ended.expect("the cases run");
}

/// Keeps the core from sleeping in its ring while the disk works: valgrind lets no other thread run
/// during that system call, so the core's own pools could not wake it. Ends with the core.
async fn stay_awake() {
    loop {
        yield_now().await;
    }
}

async fn measure_all(path: &Path, recovered: RecoveredCore, measure: impl Fn(&mut [Case])) {
    spawn(Queue::Background, stay_awake());
    let mut cases = Cases::default();
    codec::add(&mut cases);
    records::add(&mut cases);
    buffer::add(&mut cases);
    journal::add(&mut cases);
    mesh::add(&mut cases);
    index::add(&mut cases);
    let directory = fetch::add(&mut cases, path, recovered).await;
    measure(&mut cases.all);
    drop(cases);
    directory.shut_down().await;
}
