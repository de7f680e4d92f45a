//! The subcommands: each puts a run together, and prints and writes what came of it.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::{Value, json};

use crate::accounting::Accounting;
use crate::batch::BatchMaker;
use crate::client::{Client, Failure};
use crate::cluster::Cluster;
use crate::comparison;
use crate::connections;
use crate::consumer::{Consumer, Reading};
use crate::coordination;
use crate::gate;
use crate::held;
use crate::history;
use crate::latency::PERCENTILES;
use crate::ledger;
use crate::measure::Recorder;
use crate::null_server::NullServer;
use crate::options::{
    Command, ConnectionsOptions, ConsumeOptions, CoordinationOptions, CreateOptions,
    EndToEndOptions, GateOptions, HeldOptions, LoadOptions, NullServerOptions, PageOptions,
    ProduceOptions, ProfileOptions, RunOptions, Spread, Start, SweepOptions,
};
use crate::page;
use crate::producer::Producer;
use crate::profile::Profile;
use crate::report;
use crate::run::{Clock, Run, Timing, wall_ms};
use crate::sockets::Sockets;

/// What a consumer waits for the end of what it reads without a sign of life.
const CONSUME_DRAIN: Duration = Duration::from_secs(30);

/// Runs a subcommand; whether it ended without an error of the broker's.
pub(crate) fn run(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Produce(options) => produce(&options),
        Command::Consume(options) => consume(&options),
        Command::EndToEnd(options) => end_to_end(&options),
        Command::Sweep(options) => sweep(&options),
        Command::Create(options) => create(&options),
        Command::NullServer(options) => null_server(&options),
        Command::Read(options) => {
            for value in ledger::read(&options.file, &options.pointers)? {
                println!("{value}");
            }
            Ok(true)
        }
        Command::Figures(options) => {
            let figures = ledger::figures(&options.script, &options.figures)?;
            ledger::append(&figures, &options.json)?;
            Ok(true)
        }
        Command::Table(options) => {
            let reports = comparison::load(&options.file)?;
            print!("{}", comparison::table(&comparison::workloads(&reports)));
            Ok(true)
        }
        Command::Page(options) => page(&options),
        Command::Connections(options) => connections(&options),
        Command::Coordination(options) => coordination(&options),
        Command::Held(options) => held(&options),
        Command::Host(options) => {
            println!("{}", history::fingerprint(&options.data_dir)?);
            Ok(true)
        }
        Command::Record(options) => {
            let reports = comparison::load(&options.file)?;
            let (ledger, directory) = (&options.ledger, &options.data_dir);
            let count = history::record(&reports, &options.broker, directory, ledger)?;
            println!("{count} lines added to {}", ledger.display());
            Ok(true)
        }
        Command::Gate(options) => gate(&options),
        Command::Profile(options) => profile(&options),
    }
}

/// The load's options as they are in a report.
fn workload(load: &LoadOptions, rate: Option<u64>) -> Value {
    json!({
        "rate": rate,
        "record_bytes": load.record_bytes,
        "batch_bytes": load.batch_bytes,
        "connections": load.connections,
        "in_flight": load.in_flight,
        "producers": load.producers,
        "partitions_per_request": load.partitions_per_request,
        "partitioner": format!("{:?}", load.partitioner),
        "spread": format!("{:?}", load.spread),
        "acks": load.acks.code(),
        "compression": format!("{:?}", load.compression),
        "keys": load.keys,
        "idempotent": load.idempotent,
        "seed": load.seed,
        "pool_bytes": load.pool_bytes,
    })
}

fn prepare(options: &RunOptions, batch_bytes: usize) -> Result<Cluster, Failure> {
    let mut client = Client::open(&options.bootstrap)?;
    Cluster::prepare(&mut client, &options.topic_plan(batch_bytes)?)
}

fn timing(options: &ProduceOptions) -> Result<Timing, Failure> {
    let (warmup, duration) = options.time.durations()?;
    Ok(Timing {
        warmup,
        duration,
        drain: options.time.drain()?,
        count: options.time.count,
        rate: options.rate,
        tick: Duration::from_micros(options.tick),
    })
}

fn accounting(options: &RunOptions) -> Result<Accounting, Failure> {
    Accounting::new(options.broker_pid, options.data_dir.as_ref())
}

/// A run that only produces.
fn produce_run(
    options: &ProduceOptions,
    cluster: &Cluster,
    maker: BatchMaker,
) -> Result<(Run, Producer), Failure> {
    let timing = timing(options)?;
    let clock = Clock::new();
    let mut sockets = Sockets::new().map_err(|error| error.to_string())?;
    let mut producer = Producer::open(cluster, &options.load, maker, None, &mut sockets)?;
    // Only now, when everything is connected.
    let plan = timing.plan(&clock);
    producer.recorder = Recorder::new(plan.window);
    let mut run = Run {
        clock,
        plan,
        sockets,
        producer: Some(producer),
        consumer: None,
        accounting: accounting(&options.run)?,
        is_one_at_a_time: false,
        receive_count: u64::MAX,
    };
    run.execute()?;
    let producer = run.producer.take().ok_or("the run keeps its producer")?;
    Ok((run, producer))
}

fn produce(options: &ProduceOptions) -> Result<bool, Failure> {
    let maker = Producer::prepare(&options.load, false)?;
    let cluster = prepare(&options.run, options.load.batch_bytes_max())?;
    let (run, producer) = produce_run(options, &cluster, maker)?;
    let recorder = &producer.recorder;
    report::print_side("produce", recorder);
    let measured = recorder.measured;
    report::print_costs(&run.accounting, measured.bytes, measured.records);
    let mut report = report::provenance("produce", &options.run, &cluster);
    report["workload"] = workload(&options.load, options.rate);
    report["produce"] = recorder.to_json();
    report["costs"] = run.accounting.to_json(measured.bytes, measured.records);
    // From asking for the topics to the last acknowledgement.
    let last = run.clock.instant(recorder.last);
    let acknowledged = cluster
        .asked
        .map(|asked| last.saturating_duration_since(asked));
    let seconds = acknowledged.map(|acknowledged| acknowledged.as_secs_f64());
    report["topics"]["acknowledged_seconds"] = json!(seconds);
    report::write(&report, &options.run)?;
    Ok(verdict(&[recorder], &options.run))
}

fn verdict(recorders: &[&Recorder], options: &RunOptions) -> bool {
    let errors: u64 = recorders
        .iter()
        .map(|recorder| recorder.error_count())
        .sum();
    let unanswered: u64 = recorders.iter().map(|recorder| recorder.unanswered).sum();
    options.tolerate_errors || errors + unanswered == 0
}

fn consume(options: &ConsumeOptions) -> Result<bool, Failure> {
    let mut client = Client::open(&options.run.bootstrap)?;
    let mut plan = options.run.topic_plan(0)?;
    plan.is_created = false;
    let cluster = Cluster::prepare(&mut client, &plan)?;
    let (warmup, duration) = options.durations()?;
    let timing = Timing {
        warmup,
        duration,
        drain: CONSUME_DRAIN,
        count: None,
        rate: None,
        tick: Duration::ZERO,
    };
    let is_bounded = options.from == Start::Beginning && (duration.is_none() || options.repeat);
    let reading = Reading {
        connections: options.connections as usize,
        spread: options.spread,
        from: options.from,
        is_bounded,
        is_repeated: options.repeat,
        nonce: None,
    };
    let clock = Clock::new();
    let mut sockets = Sockets::new().map_err(|error| error.to_string())?;
    let mut consumer = Consumer::open(&cluster, reading, &options.fetch, &mut sockets)?;
    let plan = timing.plan(&clock);
    consumer.recorder = Recorder::new(plan.window);
    let mut run = Run {
        clock,
        plan,
        sockets,
        producer: None,
        consumer: Some(consumer),
        accounting: accounting(&options.run)?,
        is_one_at_a_time: false,
        receive_count: options.count.unwrap_or(u64::MAX),
    };
    run.execute()?;
    let consumer = run.consumer.as_ref().ok_or("the run keeps its consumer")?;
    let recorder = &consumer.recorder;
    report::print_side("consume (bytes of batches, latency of fetches)", recorder);
    let measured = recorder.measured;
    report::print_costs(&run.accounting, measured.bytes, measured.records);
    let mut report = report::provenance("consume", &options.run, &cluster);
    report["workload"] = json!({
        "connections": options.connections,
        "spread": format!("{:?}", options.spread),
        "from": format!("{:?}", options.from),
        "repeat": options.repeat,
        "fetch_max_bytes": options.fetch.fetch_max_bytes,
        "fetch_partition_max_bytes": options.fetch.fetch_partition_max_bytes,
        "skip_crc": options.fetch.skip_crc,
    });
    report["consume"] = recorder.to_json();
    report["costs"] = run.accounting.to_json(measured.bytes, measured.records);
    report::write(&report, &options.run)?;
    Ok(verdict(&[recorder], &options.run))
}

fn end_to_end_run(options: &EndToEndOptions, cluster: &Cluster) -> Result<Run, Failure> {
    let (produce, load) = (&options.produce, &options.produce.load);
    let timing = timing(produce)?;
    let clock = Clock::new();
    let mut sockets = Sockets::new().map_err(|error| error.to_string())?;
    // Distinct between runs on the same topic.
    let nonce = fastrand::Rng::with_seed(wall_ms().unsigned_abs()).u64(1..);
    let mut load = load.clone();
    if options.one_at_a_time {
        (
            load.connections,
            load.producers,
            load.in_flight,
            load.batch_bytes,
        ) = (1, None, 1, 1);
    }
    let maker = Producer::prepare(&load, true)?;
    let mut producer = Producer::open(cluster, &load, maker, Some(nonce), &mut sockets)?;
    let reading = Reading {
        connections: options.consumers.unwrap_or(load.connections) as usize,
        spread: Spread::Divided,
        from: Start::End,
        is_bounded: false,
        is_repeated: false,
        nonce: Some(nonce),
    };
    let mut consumer = Consumer::open(cluster, reading, &options.fetch, &mut sockets)?;
    let plan = timing.plan(&clock);
    producer.recorder = Recorder::new(plan.window);
    consumer.recorder = Recorder::new(plan.window);
    let mut run = Run {
        clock,
        plan,
        sockets,
        producer: Some(producer),
        consumer: Some(consumer),
        accounting: accounting(&produce.run)?,
        is_one_at_a_time: options.one_at_a_time,
        receive_count: produce.time.count.unwrap_or(u64::MAX),
    };
    run.execute()?;
    Ok(run)
}

fn end_to_end(options: &EndToEndOptions) -> Result<bool, Failure> {
    options.check()?;
    let produce = &options.produce;
    let cluster = prepare(&produce.run, produce.load.batch_bytes_max())?;
    let run = end_to_end_run(options, &cluster)?;
    let (Some(producer), Some(consumer)) = (&run.producer, &run.consumer) else {
        return Err("the run keeps both sides".to_owned());
    };
    report::print_side("produce", &producer.recorder);
    report::print_side("end to end (bytes of batches)", &consumer.recorder);
    let measured = producer.recorder.measured;
    report::print_costs(&run.accounting, measured.bytes, measured.records);
    let mut report = report::provenance("end-to-end", &produce.run, &cluster);
    report["workload"] = workload(&produce.load, produce.rate);
    report["workload"]["consumers"] = json!(options.consumers);
    report["workload"]["one_at_a_time"] = json!(options.one_at_a_time);
    report["produce"] = producer.recorder.to_json();
    report["end_to_end"] = consumer.recorder.to_json();
    report["costs"] = run.accounting.to_json(measured.bytes, measured.records);
    report::write(&report, &produce.run)?;
    Ok(verdict(
        &[&producer.recorder, &consumer.recorder],
        &produce.run,
    ))
}

fn sweep(options: &SweepOptions) -> Result<bool, Failure> {
    let run = &options.produce.run;
    let cluster = prepare(run, options.produce.load.batch_bytes_max())?;
    let names: String = PERCENTILES
        .iter()
        .map(|(name, _)| format!("{name:>10}"))
        .collect();
    println!(
        "{:>12}{:>12}{names}{:>10} ms",
        "asked/s", "reached/s", "max"
    );
    let (mut points, mut is_good) = (Vec::new(), true);
    for &rate in &options.rates {
        if rate == 0 {
            return Err("--rates are 1 at least".to_owned());
        }
        let mut produce = options.produce.clone();
        produce.rate = Some(rate);
        let maker = Producer::prepare(&produce.load, false)?;
        let (done, producer) = produce_run(&produce, &cluster, maker)?;
        let recorder = &producer.recorder;
        let milliseconds = |value: u64| format!("{:>10.3}", value as f64 / 1_000.0);
        let latency = &recorder.latency;
        let line: String = PERCENTILES
            .iter()
            .map(|(_, percentile)| milliseconds(latency.at_percentile(*percentile)))
            .collect();
        let (reached, max) = (recorder.records_per_second(), milliseconds(latency.max()));
        println!("{rate:>12}{reached:>12.0}{line}{max}");
        let measured = recorder.measured;
        points.push(json!({
            "rate": rate,
            "produce": recorder.to_json(),
            "costs": done.accounting.to_json(measured.bytes, measured.records),
        }));
        is_good &= verdict(&[recorder], run);
    }
    let mut report = report::provenance("sweep", run, &cluster);
    report["workload"] = workload(&options.produce.load, None);
    report["points"] = Value::Array(points);
    report::write(&report, run)?;
    Ok(is_good)
}

fn page(options: &PageOptions) -> Result<bool, Failure> {
    let reports = comparison::load(&options.file)?;
    let (workloads, sweeps) = (
        comparison::workloads(&reports),
        comparison::sweeps(&reports),
    );
    let entries = match &options.ledger {
        Some(ledger) => history::load(ledger)?,
        None => Vec::new(),
    };
    let html = page::page(&options.title, &reports, &workloads, &sweeps, &entries);
    let written = std::fs::write(&options.html, html);
    written.map_err(|error| format!("{}: {error}", options.html.display()))?;
    Ok(true)
}

fn connections(options: &ConnectionsOptions) -> Result<bool, Failure> {
    let mut plan = options.run.topic_plan(0)?;
    // No topic is needed, only what the broker says of itself.
    (plan.names, plan.is_created) = (Vec::new(), false);
    let cluster = Cluster::prepare(&mut Client::open(&options.run.bootstrap)?, &plan)?;
    let (idle, accounting) = connections::measure(options)?;
    print!("{}", idle.to_lines());
    let mut report = report::provenance("connections", &options.run, &cluster);
    report["connections"] = idle.to_json();
    report["costs"] = accounting.to_json(0, 0);
    report::write(&report, &options.run)?;
    Ok(idle.lost == 0 || options.run.tolerate_errors)
}

fn coordination(options: &CoordinationOptions) -> Result<bool, Failure> {
    let plan = options.run.topic_plan(0)?;
    let cluster = Cluster::prepare(&mut Client::open(&options.run.bootstrap)?, &plan)?;
    let (measured, accounting) = coordination::measure(options, &cluster)?;
    print!("{}", measured.to_lines(options.kind));
    let mut report = report::provenance(options.kind.name(), &options.run, &cluster);
    report["coordination"] = measured.to_json();
    report["costs"] = accounting.to_json(0, 0);
    report::write(&report, &options.run)?;
    Ok(true)
}

fn held(options: &HeldOptions) -> Result<bool, Failure> {
    let plan = options.run.topic_plan(0)?;
    let cluster = Cluster::prepare(&mut Client::open(&options.run.bootstrap)?, &plan)?;
    let (measured, accounting) = held::measure(options, &cluster)?;
    print!("{}", measured.to_lines(options.kind));
    let mut report = report::provenance(options.kind.name(), &options.run, &cluster);
    report["held"] = measured.to_json();
    report["costs"] = accounting.to_json(0, 0);
    report::write(&report, &options.run)?;
    Ok(true)
}

/// Whether nothing regressed.
fn gate(options: &GateOptions) -> Result<bool, Failure> {
    let outcome = gate::judge(&gate::pairs(options)?);
    print!("{}", outcome.to_table());
    let has_other = options.against.is_some();
    if outcome.is_without_past() && !has_other {
        println!("nothing to compare with on this machine: make bench ARGS=--record");
    }
    if outcome.is_noisy() {
        println!(
            "more than half is noise somewhere: only a large regression shows there. More --rounds or \
             --seconds, or --baseline COMMIT, tell more"
        );
    }
    // A ledger may lack a workload that is new; a broker that took turns may not.
    Ok(outcome.is_good() && !(has_other && outcome.has_new()))
}

fn profile(options: &ProfileOptions) -> Result<bool, Failure> {
    let text = std::fs::read(&options.file);
    let text = text.map_err(|error| format!("{}: {error}", options.file.display()))?;
    let profile = Profile::parse(&String::from_utf8_lossy(&text));
    if profile.is_empty() {
        return Err(format!("{}: no samples", options.file.display()));
    }
    print!("{}", profile.to_text(options.frequency));
    Ok(true)
}

fn create(options: &CreateOptions) -> Result<bool, Failure> {
    let cluster = prepare(&options.run, 0)?;
    let seconds = |after: Option<Duration>| after.unwrap_or_default().as_secs_f64();
    println!(
        "{} topics, {} partitions: created after {:.3} s, every leader known after {:.3} s",
        cluster.topics.len(),
        cluster.targets.len(),
        seconds(cluster.created_after),
        seconds(cluster.leaders_after)
    );
    let report = report::provenance("create", &options.run, &cluster);
    report::write(&report, &options.run)?;
    Ok(true)
}

fn null_server(options: &NullServerOptions) -> Result<bool, Failure> {
    let server = NullServer::bind(&options.listen, options.batch_bytes as usize);
    let mut server = server.map_err(|error| format!("{}: {error}", options.listen))?;
    println!("null server ready {}", server.address());
    let served = server.serve(&AtomicBool::new(false));
    served.map_err(|error| error.to_string())?;
    Ok(true)
}
