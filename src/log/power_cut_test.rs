//! Power cuts on the simulated disk, against a model.
//!
//! One seed is one history: a few cores and logs, random appends, checkpoints, deletions and log
//! start moves, a cut at a random disk event (or an exit of the process), recovery (which may be cut
//! too), and again. After each recovery every log must hold a prefix of what was enqueued, byte for
//! byte, that includes everything acknowledged.
//!
//! `PERCOLOG_SEED` repeats one seed, `PERCOLOG_RUNS` sets their number, `PERCOLOG_BREACH` looks for
//! one planted breach only.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::chunk_cache::{CacheLimits, ChunkCache};
use super::journal::JournalLimits;
use super::log_directory::{Housekeeping, LogDirectory};
use super::partition_log::{LogError, LogImage, LogSettings, PartitionLog};
use super::position::{LeaderEpoch, LogId, Offset};
use super::power_cut_compaction::{
    compact_somewhere, compare_keyed, is_keyed, keyed_batch, keyed_read_is_right, note_cut,
    settings_of,
};
use super::reader::BatchRun;
use super::recovery::{RecoveredCore, RecoveryError, recover, repair_directory};
use super::segment_pool::PoolLimits;
use crate::runtime::breach::Breach;
use crate::runtime::clock;
use crate::runtime::core_id::CoreId;
use crate::runtime::executor::{Queue, spawn, yield_now};
use crate::runtime::random::random_u64;
use crate::runtime::signal::Signal;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;
use crate::wire::record_batch::{BatchHeader, HEADER_BYTES};
use crate::wire::record_batch_builder::{BatchBuilder, BatchOptions};

const DATA: &str = "/data";

/// Small enough that every history rolls, evicts, wraps the journal and checkpoints.
pub(super) const JOURNAL: JournalLimits = JournalLimits {
    total_bytes: 5 * (64 << 10),
    file_bytes: 64 << 10,
    first_file_bytes: 24 << 10,
    group_bytes: 12 << 10,
    pending_bytes: 12 << 10,
    append_bytes: 17 << 10,
    groups_in_flight: 2,
    direct_bytes: 8 << 10,
    direct_busy_bytes: 4 << 10,
    group_direct_bytes: 32 << 10,
};

pub(super) const CACHE: CacheLimits = CacheLimits {
    total_bytes: 96 << 10,
    unstored_bytes: 48 << 10,
    least_chunk_bytes: 4 << 10,
    most_chunk_bytes: 16 << 10,
};

pub(super) const SETTINGS: LogSettings = LogSettings {
    segment_bytes: 24 << 10,
    segment_ms: i64::MAX,
    index_interval_bytes: 512,
    index_most_entries: 4,
    retention_ms: None,
    retention_bytes: None,
    deletable: true,
    compaction: None,
    producers_max: 64,
    producer_expiration_ms: i64::MAX / 2,
    file_delete_delay_ms: 0,
    flush_messages: 1,
};

pub(super) const HOUSEKEEPING: Housekeeping = Housekeeping {
    pool: PoolLimits {
        total_bytes: 128 << 10,
        least_file_bytes: 4 << 10,
    },
    write_bytes_per_second: 0,
    cool_after: std::time::Duration::from_secs(3600),
};

/// A log as it should be.
#[derive(Default)]
pub(super) struct ModelLog {
    /// Stored bytes of every batch enqueued, by base offset.
    pub(super) batches: BTreeMap<i64, Vec<u8>>,
    end: i64,
    pub(super) acknowledged: i64,
    /// Highest log start asked for and highest acknowledged.
    start_asked: i64,
    start_acknowledged: i64,
    /// The log is being cut at the batch that holds this.
    cut_asked: Option<i64>,
    /// How often it was asked to be cut.
    cuts: u64,
    /// Keys whose newest record was cut off, and where: compaction may have dropped older ones.
    pub(super) shadowed: BTreeMap<Vec<u8>, i64>,
    deletion_asked: bool,
    deletion_done: bool,
}

#[derive(Default)]
pub(super) struct Model {
    logs: BTreeMap<LogId, ModelLog>,
}

pub(super) fn random_below(bound: u64) -> u64 {
    random_u64() % bound
}

pub(super) fn log_id(number: u64) -> LogId {
    let mut topic = [0; 16];
    topic[..8].copy_from_slice(&number.to_le_bytes());
    LogId {
        topic,
        partition: (number % 7) as u32,
    }
}

/// Later logs take over the names of earlier ones, as recreated topics do.
fn directory_name(number: u64) -> String {
    if number < 4 {
        format!("log-{number}")
    } else {
        format!("new-{}", number % 3)
    }
}

fn random_batch() -> (BatchHeader, Vec<u8>) {
    let producer = random_below(8) == 0;
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: if producer {
            random_below(100_000) as i64
        } else {
            -1
        },
        producer_epoch: if producer { 0 } else { -1 },
        base_sequence: if producer { 0 } else { -1 },
        ..BatchOptions::default()
    });
    let most = [40, 700, 3000, 5500][random_below(4) as usize];
    for _ in 0..=random_below(3) {
        // Every value is its own, so misplaced bytes are noticed.
        let value = random_u64()
            .to_le_bytes()
            .repeat(random_below(most / 8) as usize);
        builder.append(
            random_below(1000) as i64,
            None,
            Some(&value),
            [].into_iter(),
        );
    }
    let bytes = builder.finish();
    let header = BatchHeader::parse(&bytes).expect("just built");
    (header, bytes[HEADER_BYTES..].to_vec())
}

/// What is wrong after a recovery.
pub(super) type Verdict = Result<(), String>;

struct Run {
    seed: u64,
    model: Rc<RefCell<Model>>,
    cuts: u64,
    next_log: u64,
}

fn owner(cores: u16) -> impl Fn(LogId) -> u16 {
    move |log| (log.partition % u32::from(cores)) as u16
}

impl Run {
    fn new(seed: u64) -> Run {
        Run {
            seed,
            model: Rc::default(),
            cuts: 0,
            next_log: 4,
        }
    }

    /// Several lives of one machine.
    fn play(&mut self, breach: Option<Breach>) -> Verdict {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut disk = DiskModel::new();
        for life in 0..4 {
            let world = World::new(random.u64(..), disk);
            if let Some(breach) = breach {
                world.plant(breach);
            }
            world.with_disk(|disk, _| {
                disk.cut_after(random.u64(5..1500));
                if random.u8(..3) == 0 {
                    disk.cut_in_extent(random.u64(..25));
                }
            });
            let cores = random.u16(1..=3);
            let kill = random.u8(..5) == 0;
            let outcome = self.live(&world, cores)?;
            disk = if matches!(outcome, Life::Ended) && kill {
                world.disk_after_exit()
            } else {
                self.cuts += 1;
                world.disk_after_power_cut()
            };
            disk = self.examine(disk, random.u64(..), life, breach)?;
        }
        Ok(())
    }

    fn live(&mut self, world: &Rc<World>, cores: u16) -> Result<Life, String> {
        let recovered = match world.enter(|| recover(Path::new(DATA), cores, owner(cores))) {
            Ok((recovered, _)) => recovered,
            Err(_) if world.with_disk(|disk, _| disk.is_cut()) => return Ok(Life::Cut),
            Err(error) => return Err(format!("recovery refuses: {error}")),
        };
        let model = self.model.clone();
        let first_new = self.next_log;
        self.next_log += 3;
        let ended = world.run(async move {
            let directories = start(recovered).await;
            let finished: Rc<Signal> = Rc::default();
            let running = Rc::new(std::cell::Cell::new(4));
            for worker in 0..4 {
                let (directories, model) = (directories.clone(), model.clone());
                let (running, finished) = (running.clone(), finished.clone());
                spawn(Queue::Ack, async move {
                    work(&directories, &model, worker, first_new).await;
                    running.set(running.get() - 1);
                    finished.raise();
                });
            }
            while running.get() > 0 {
                finished.raised().await;
            }
            if random_below(3) == 0 {
                for directory in &directories {
                    directory.shut_down().await;
                }
            }
        });
        Ok(if ended.is_ok() {
            Life::Ended
        } else {
            Life::Cut
        })
    }

    /// Recovers in a machine of its own (with cuts in between) and compares with the model.
    fn examine(
        &mut self,
        mut disk: DiskModel,
        seed: u64,
        life: usize,
        breach: Option<Breach>,
    ) -> Result<DiskModel, String> {
        let mut random = fastrand::Rng::with_seed(seed);
        loop {
            let world = World::new(random.u64(..), disk);
            if let Some(breach) = breach {
                world.plant(breach);
            }
            if random.bool() {
                world.with_disk(|disk, _| disk.cut_after(random.u64(1..60)));
            }
            let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
            let recovered = match recovered {
                Ok((recovered, _)) => recovered,
                Err(RecoveryError::Disk { .. }) if world.with_disk(|disk, _| disk.is_cut()) => {
                    self.cuts += 1;
                    disk = world.disk_after_power_cut();
                    continue;
                }
                Err(error) => return Err(format!("life {life}: recovery refuses: {error}")),
            };
            world.with_disk(|disk, _| disk.keep_power());
            let model = self.model.clone();
            let verdict = world.run(async move {
                let directories = start(recovered).await;
                compare(&directories[0], &model).await
            });
            verdict
                .expect("no cut is due")
                .map_err(|error| format!("life {life}: {error}"))?;
            return Ok(world.disk_after_exit());
        }
    }
}

enum Life {
    Cut,
    Ended,
}

async fn start(recovered: Vec<RecoveredCore>) -> Vec<Rc<LogDirectory>> {
    let mut directories = Vec::new();
    for (core, recovered) in recovered.into_iter().enumerate() {
        let cache = Rc::new(ChunkCache::new(CACHE));
        let path = Path::new(DATA);
        let directory = LogDirectory::start(
            path,
            core as u16,
            recovered,
            &cache,
            JOURNAL,
            HOUSEKEEPING,
            |image: &LogImage| settings_of(image.id),
        )
        .await;
        directories.push(directory.expect("the simulated disk gives no errors"));
    }
    directories
}

async fn work(
    directories: &[Rc<LogDirectory>],
    model: &Rc<RefCell<Model>>,
    worker: u64,
    first_new: u64,
) {
    for _ in 0..random_below(60) {
        match random_below(24) {
            0 | 7 => {
                let core = random_below(directories.len() as u64) as usize;
                directories[core].ask_for_checkpoint();
                directories[core].ask_for_cooling();
            }
            1 => clock::sleep(std::time::Duration::from_millis(random_below(30))).await,
            2 => move_start(directories, model).await,
            4 => truncate(directories, model).await,
            5 | 6 => compact_somewhere(directories, first_new).await,
            3 if worker == 0 && random_below(3) == 0 => delete(directories, model).await,
            _ => append(directories, model, first_new).await,
        }
    }
}

pub(super) fn pick(directories: &[Rc<LogDirectory>], id: LogId) -> Rc<LogDirectory> {
    let core = owner(directories.len() as u16)(id);
    directories[CoreId(core).index()].clone()
}

async fn append(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>, first_new: u64) {
    let number = if random_below(10) == 0 {
        first_new + random_below(3)
    } else {
        random_below(4)
    };
    let id = log_id(number);
    if model
        .borrow()
        .logs
        .get(&id)
        .is_some_and(|log| log.deletion_asked || log.cut_asked.is_some())
    {
        return;
    }
    let directory = pick(directories, id);
    let log = match directory.log(id) {
        Some(log) => log,
        None => directory.create_log(id, &directory_name(number), settings_of(id)),
    };
    let (header, payload) = if is_keyed(id) {
        keyed_batch()
    } else {
        random_batch()
    };
    let size = HEADER_BYTES + payload.len();
    if log
        .ready(size, i64::from(header.record_count), clock::wall_ms())
        .await
        .is_err()
    {
        return;
    }
    let appended = log.append(&header, &payload, LeaderEpoch(1));
    {
        let mut model = model.borrow_mut();
        let log = model.logs.entry(id).or_default();
        assert_eq!(log.end, appended.base_offset.0, "offsets are dense");
        let mut bytes = header.placed(appended.base_offset.0, 1).to_vec();
        bytes.extend_from_slice(&payload);
        log.batches.insert(appended.base_offset.0, bytes);
        log.end = appended.end.0;
    }
    if random_below(4) > 0 {
        if await_flushed(&log, appended.end).await {
            acknowledge(model, id, appended.end);
        }
    } else {
        yield_now().await;
    }
    if random_below(3) == 0 {
        read_somewhere(&log, model).await;
    }
}

/// False when the log was deleted or cut meanwhile; nothing else may stop it on a disk without errors.
async fn await_flushed(log: &PartitionLog, end: Offset) -> bool {
    loop {
        let moved = log.flush_moved().raised();
        if log.flushed_offset() >= end {
            return true;
        }
        if log.end_offset() < end {
            return false; // Cut off meanwhile.
        }
        match log.healthy() {
            Err(LogError::Deleted) => return false,
            healthy => healthy.expect("the disk gives no errors"),
        }
        moved.await;
    }
}

fn acknowledge(model: &Rc<RefCell<Model>>, id: LogId, end: Offset) {
    let mut model = model.borrow_mut();
    if let Some(log) = model.logs.get_mut(&id) {
        log.acknowledged = log.acknowledged.max(end.0);
    }
}

/// The bytes of a run in one piece.
pub(super) fn joined(run: &BatchRun) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(run.size_bytes);
    for slice in &run.slices {
        bytes.extend_from_slice(slice);
    }
    bytes
}

async fn read_somewhere(log: &Rc<PartitionLog>, model: &Rc<RefCell<Model>>) {
    let (start, flushed) = (log.start_offset(), log.flushed_offset());
    let is_cut = |log: &ModelLog| log.cut_asked.is_some();
    if flushed <= start || model.borrow().logs.get(&log.id()).is_none_or(is_cut) {
        return;
    }
    let from = Offset(start.0 + random_below((flushed.0 - start.0) as u64) as i64);
    let most = random_below(20_000) as usize;
    let cuts = model.borrow().logs[&log.id()].cuts;
    let Ok(run) = log.read(from, flushed, most, true).await else {
        return;
    };
    if model.borrow().logs[&log.id()].cuts > cuts {
        return; // What was read may be gone.
    }
    let read = joined(&run);
    let model = model.borrow();
    let batches = &model.logs[&log.id()].batches;
    if is_keyed(log.id()) {
        keyed_read_is_right(&read, batches);
        return;
    }
    let (first, _) = batches
        .range(..=from.0)
        .next_back()
        .expect("read below the end");
    let expected: Vec<u8> = batches
        .range(first..)
        .flat_map(|(_, bytes)| bytes.iter().copied())
        .take(read.len())
        .collect();
    assert!(
        read == expected,
        "read of {:?} at {from} differs from what was appended",
        log.id()
    );
    assert!(!read.is_empty(), "nothing at {from} below {flushed}");
}

async fn move_start(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let id = log_id(random_below(4));
    let Some(log) = pick(directories, id).log(id) else {
        return;
    };
    let cut_asked = |log: &ModelLog| log.cut_asked.is_some();
    if model.borrow().logs.get(&id).is_none_or(cut_asked) {
        return;
    }
    let (start, flushed) = (log.start_offset(), log.flushed_offset());
    let to = Offset(start.0 + random_below((flushed.0 - start.0 + 1) as u64) as i64);
    let cuts = model.borrow().logs[&id].cuts;
    if let Some(log) = model.borrow_mut().logs.get_mut(&id) {
        log.start_asked = log.start_asked.max(to.0);
    }
    // A cut meanwhile may take the start back with the batch it is in.
    if log.advance_start(to).await.is_ok()
        && let Some(log) = model.borrow_mut().logs.get_mut(&id)
        && log.cuts == cuts
    {
        log.start_acknowledged = log.start_acknowledged.max(to.0);
    }
}

async fn truncate(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let id = log_id(random_below(4));
    let Some(log) = pick(directories, id).log(id) else {
        return;
    };
    {
        let mut model = model.borrow_mut();
        let Some(expected) = model.logs.get_mut(&id) else {
            return;
        };
        let span = expected.end - expected.start_asked;
        if span < 1 || expected.cut_asked.is_some() || expected.start_asked != log.start_offset().0
        {
            return;
        }
        expected.cuts += 1;
        expected.cut_asked = Some(expected.end - random_below(span.min(40) as u64) as i64);
    }
    let to = model.borrow().logs[&id].cut_asked.expect("just set");
    if log.truncate(Offset(to)).await.is_err() {
        return;
    }
    let mut model = model.borrow_mut();
    let expected = model.logs.get_mut(&id).expect("just used");
    let end = log.end_offset().0;
    assert!(end <= to, "{id:?} was cut at {to} and ends at {end}");
    note_cut(id, expected, end);
    expected.batches.split_off(&end);
    expected.end = end;
    expected.acknowledged = expected.acknowledged.min(end);
    expected.start_asked = expected.start_asked.min(end);
    expected.start_acknowledged = expected.start_acknowledged.min(end);
    expected.cut_asked = None;
}

async fn delete(directories: &[Rc<LogDirectory>], model: &Rc<RefCell<Model>>) {
    let id = {
        let mut model = model.borrow_mut();
        let number = 4 + random_below(12);
        let Some(log) = model.logs.get_mut(&log_id(number)) else {
            return;
        };
        log.deletion_asked = true;
        log_id(number)
    };
    pick(directories, id).delete_log(id).await;
    if let Some(log) = model.borrow_mut().logs.get_mut(&id) {
        log.deletion_done = true;
    }
}

/// Compares every log with the model and makes the model what was found.
async fn compare(directory: &Rc<LogDirectory>, model: &Rc<RefCell<Model>>) -> Verdict {
    let ids: Vec<LogId> = model.borrow().logs.keys().copied().collect();
    for log in directory.logs() {
        if !ids.contains(&log.id()) && log.end_offset() > Offset(0) {
            return Err(format!("{:?} was never written", log.id()));
        }
    }
    for id in ids {
        let mut expected = model.borrow_mut().logs.remove(&id).expect("listed");
        let found = directory.log(id);
        if expected.deletion_asked {
            if expected.deletion_done && found.is_some() {
                return Err(format!("{id:?} is back after its deletion"));
            }
            if let Some(log) = found {
                log_is_gone_or_whole(&log)?;
                directory.delete_log(id).await;
            }
            continue;
        }
        match found {
            Some(log) => {
                compare_log(&log, &mut expected).await?;
                model.borrow_mut().logs.insert(id, expected);
            }
            None if expected.acknowledged > 0 => {
                return Err(format!(
                    "{id:?} is lost: acknowledged up to {}",
                    expected.acknowledged
                ));
            }
            None => {}
        }
    }
    Ok(())
}

fn log_is_gone_or_whole(log: &PartitionLog) -> Verdict {
    log.healthy()
        .map_err(|error| format!("{:?}, half deleted: {error}", log.id()))
}

async fn compare_log(log: &Rc<PartitionLog>, expected: &mut ModelLog) -> Verdict {
    let id = log.id();
    log.healthy().map_err(|error| format!("{id:?}: {error}"))?;
    let (start, end) = (log.start_offset().0, log.end_offset().0);
    let least = match expected.cut_asked.take() {
        Some(to) => {
            note_cut(id, expected, end);
            let holds = expected.batches.range(..=to).next_back();
            expected
                .acknowledged
                .min(holds.map_or(0, |(base, _)| *base))
        }
        None => expected.acknowledged,
    };
    if end < least {
        return Err(format!("{id:?} ends at {end}, acknowledged {least}"));
    }
    if end > expected.end {
        return Err(format!(
            "{id:?} ends at {end}, only {} were appended",
            expected.end
        ));
    }
    let least_start = expected.start_acknowledged.min(least);
    if start < least_start || start > expected.start_asked {
        return Err(format!(
            "{id:?} starts at {start}, acknowledged {} asked {}",
            expected.start_acknowledged, expected.start_asked
        ));
    }
    if is_keyed(id) {
        compare_keyed(log, expected).await?;
    } else {
        compare_batches(log, expected).await?;
    }
    expected.batches.split_off(&end);
    expected.end = end;
    expected.acknowledged = end;
    expected.start_asked = start;
    expected.start_acknowledged = start;
    Ok(())
}

async fn compare_batches(log: &Rc<PartitionLog>, expected: &ModelLog) -> Verdict {
    let (id, end) = (log.id(), log.end_offset().0);
    let mut at = log.start_offset().0;
    while at < end {
        let run = log
            .read(Offset(at), Offset(end), 10_000, true)
            .await
            .map_err(|error| format!("{id:?} at {at}: {error}"))?;
        let read = joined(&run);
        let (first, _) = expected
            .batches
            .range(..=at)
            .next_back()
            .expect("start was a batch's");
        let mut rest = &read[..];
        let first = *first;
        for (base, batch) in expected.batches.range(first..) {
            if rest.len() < batch.len() {
                break;
            }
            if rest[..batch.len()] != batch[..] {
                return Err(format!(
                    "{id:?}: the batch at {base} is not what was appended"
                ));
            }
            rest = &rest[batch.len()..];
            at = base + i64::from(BatchHeader::parse(batch).expect("built").last_offset_delta) + 1;
        }
        if rest.len() == read.len() {
            return Err(format!("{id:?}: no whole batch at {at}"));
        }
    }
    Ok(())
}

fn runs(default: u64) -> std::ops::Range<u64> {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|value: String| value.parse().ok())
    };
    match (number("PERCOLOG_SEED"), number("PERCOLOG_RUNS")) {
        (Some(seed), _) => seed..seed + 1,
        (None, runs) => 0..runs.unwrap_or(default),
    }
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented() {
    // Worlds belong to their thread, so seeds are played side by side.
    let cuts: u64 = std::thread::scope(|scope| {
        let play = |part: usize| {
            scope.spawn(move || runs(2500).skip(part).step_by(2).map(cuts_of).sum::<u64>())
        };
        let parts = [play(0), play(1)];
        let joined = parts.into_iter().map(std::thread::ScopedJoinHandle::join);
        joined
            .map(|cuts| cuts.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .sum()
    });
    println!("{cuts} cuts");
}

/// Plays one seed; its cuts.
fn cuts_of(seed: u64) -> u64 {
    let mut run = Run::new(seed);
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play(None)));
    match verdict {
        Ok(Ok(())) => run.cuts,
        Ok(Err(error)) => panic!("PERCOLOG_SEED={seed}: {error}"),
        Err(_) => panic!("PERCOLOG_SEED={seed}: see the panic above"),
    }
}

/// Within how many seeds a planted breach must show.
const SEEDS_TO_FIND: u64 = 20_000;

fn is_found(breach: Breach) {
    let found = (0..SEEDS_TO_FIND).find(|seed| {
        let mut run = Run::new(*seed);
        let verdict =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play(Some(breach))));
        !matches!(verdict, Ok(Ok(())))
    });
    println!("{breach:?}: found by seed {found:?}");
    assert!(
        found.is_some(),
        "{breach:?} is not found within {SEEDS_TO_FIND} seeds"
    );
}

#[test]
fn planted_breaches_are_found() {
    let breaches = [
        Breach::AcknowledgeEarly,
        Breach::AcknowledgeOutOfOrder,
        Breach::DropGroupDurability,
        Breach::CheckpointBeforeData,
        Breach::SkipBlockRebase,
        Breach::NameBeforeDirectorySync,
        Breach::StaleSuccessor,
        Breach::ReuseBeforeCheckpoint,
        Breach::ReplayIntoSwapped,
        Breach::SwapBeforeEntry,
        Breach::DropExtentDurability,
        Breach::RewriteBlockUnderImage,
        Breach::ReplayOverDirect,
        Breach::SkipExtentCheck,
        Breach::TruncateBeforeEntry,
    ];
    let only = std::env::var("PERCOLOG_BREACH").ok();
    let wanted = |breach: &Breach| {
        only.as_ref()
            .is_none_or(|name| *name == format!("{breach:?}"))
    };
    let breaches: Vec<Breach> = breaches.into_iter().filter(wanted).collect();
    // Worlds belong to their thread, so breaches are looked for side by side.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed = std::thread::scope(|scope| {
        let search = |part: usize| {
            let mine: Vec<Breach> = breaches.iter().skip(part).step_by(2).copied().collect();
            scope.spawn(move || mine.into_iter().for_each(is_found))
        };
        let searches = [search(0), search(1)];
        searches.into_iter().find_map(|search| search.join().err())
    });
    std::panic::set_hook(quiet);
    if let Some(missed) = missed {
        std::panic::resume_unwind(missed);
    }
}

/// A machine that acknowledged ten records in ten groups and then lost its power.
fn disk_with_ten_groups() -> DiskModel {
    let world = World::new(7, DiskModel::new());
    let recovered = world
        .enter(|| recover(Path::new(DATA), 1, |_| 0))
        .expect("fresh")
        .0;
    let written = world.run(async move {
        let directory = start(recovered).await.remove(0);
        let log = directory.create_log(log_id(0), "log-0", SETTINGS);
        for _ in 0..10 {
            let (header, payload) = random_batch();
            let size = HEADER_BYTES + payload.len();
            log.ready(size, 1, clock::wall_ms()).await.expect("healthy");
            let end = log.append(&header, &payload, LeaderEpoch(1)).end;
            assert!(await_flushed(&log, end).await);
        }
        // The closing group says that all before it was complete.
        clock::sleep(std::time::Duration::from_millis(50)).await;
    });
    written.expect("no cut is due");
    world.disk_after_power_cut()
}

fn journal_groups(disk: &DiskModel) -> Vec<(std::path::PathBuf, usize, super::group::GroupHeader)> {
    let mut groups = Vec::new();
    for (path, _) in disk.files() {
        if path
            .extension()
            .is_none_or(|extension| extension != "journal")
        {
            continue;
        }
        let content = disk.content(&path);
        for position in (0..content.len()).step_by(4096) {
            if let Some((header, _)) = super::group::GroupHeader::decode(&content[position..]) {
                groups.push((path.clone(), position, header));
            }
        }
    }
    groups.sort_by_key(|(_, _, header)| header.sequence);
    groups
}

/// Recovers after one bit of a group in the middle was flipped: in its body or in its header.
fn recover_after_flip(in_body: bool, breach: Option<Breach>) -> RecoveredCore {
    let mut disk = disk_with_ten_groups();
    let groups = journal_groups(&disk);
    let (path, position, header) = groups[groups.len() / 2].clone();
    let byte = if in_body {
        64 + header.body_length as usize / 2
    } else {
        30
    };
    disk.flip_bit(&path, position + byte, 3);
    let world = World::new(8, disk);
    if let Some(breach) = breach {
        world.plant(breach);
    }
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    recovered.expect("others are served").0.remove(0)
}

#[test]
fn a_bad_group_in_the_middle_is_damage_and_not_the_end() {
    for in_body in [true, false] {
        let core = recover_after_flip(in_body, None);
        let damage = core.logs[0].damage.as_deref().expect("it has lost records");
        assert!(damage.contains("journal"), "{damage}");
        let core = recover_after_flip(in_body, Some(Breach::BadMiddleIsEnd));
        assert_eq!(core.logs[0].damage, None, "cut silently");
    }
}

#[test]
fn repair_cuts_what_is_damaged_and_tells_the_loss() {
    let mut disk = disk_with_ten_groups();
    let groups = journal_groups(&disk);
    let (path, position, _) = groups[groups.len() / 2].clone();
    disk.flip_bit(&path, position + 30, 3);
    let world = World::new(8, disk);
    world.enter(|| {
        let tried = repair_directory(Path::new(DATA), &[], true).expect("readable");
        let (core, summary) = recover(Path::new(DATA), 1, |_| 0).expect("others are served");
        assert_eq!((tried.len(), summary.damaged), (1, 1));
        assert_eq!(tried[0].end, core[0].logs[0].end);
        let names = ["other-0".to_string()];
        assert_eq!(
            repair_directory(Path::new(DATA), &names, false).expect("readable"),
            []
        );
        let cut = repair_directory(Path::new(DATA), &[], false).expect("readable");
        assert_eq!(cut, tried);
        assert!(cut[0].end > Offset(0), "what verifies stays");
        let (core, summary) = recover(Path::new(DATA), 1, |_| 0).expect("repaired");
        assert_eq!((summary.damaged, core[0].logs[0].end), (0, cut[0].end));
    });
}

#[test]
fn a_torn_last_group_is_the_end_and_not_damage() {
    let mut disk = disk_with_ten_groups();
    let groups = journal_groups(&disk);
    // The closing group, and the one before it whose completion only the closing group told.
    let (closing, position, _) = groups[groups.len() - 1].clone();
    disk.flip_bit(&closing, position + 20, 1);
    let world = World::new(9, disk);
    let (recovered, _) = world
        .enter(|| recover(Path::new(DATA), 1, |_| 0))
        .expect("only torn");
    assert!(recovered[0].logs[0].end > Offset(0));
}

#[test]
fn a_segment_that_was_cut_short_takes_only_its_own_log_offline() {
    let mut disk = disk_with_ten_groups();
    let world = World::new(10, std::mem::take(&mut disk));
    // A checkpoint lets go of the groups, so that only the segment has the records.
    let recovered = world
        .enter(|| recover(Path::new(DATA), 1, |_| 0))
        .expect("recovers")
        .0;
    drop(recovered);
    let segment = Path::new(DATA)
        .join("log-0")
        .join("00000000000000000000.log");
    world.enter(|| {
        let file = crate::runtime::startup::File::open(&segment).expect("exists");
        file.set_len(100).expect("cut");
        file.sync().expect("flushed");
    });
    let (recovered, summary) = world
        .enter(|| recover(Path::new(DATA), 1, |_| 0))
        .expect("others are served");
    assert_eq!(summary.damaged, 1);
    assert!(
        recovered[0].logs[0]
            .damage
            .as_deref()
            .is_some_and(|what| what.contains("100 bytes"))
    );
}
