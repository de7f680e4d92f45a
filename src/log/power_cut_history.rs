//! One history of a power-cut test: several lives of one machine, each ended by a cut or an exit, and
//! what recovery made of them.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;

use super::chunk_cache::{CacheLimits, ChunkCache};
use super::journal::JournalLimits;
use super::log_directory::{Housekeeping, LogDirectory};
use super::partition_log::{LogImage, LogSettings};
use super::position::LogId;
use super::power_cut_compaction::settings_of;
use super::power_cut_model::{Model, Verdict, compare};
use super::power_cut_workload::{random_below, work};
use super::recovery::{RecoveredCore, RecoveryError, recover};
use super::segment_pool::PoolLimits;
use crate::runtime::breach::Breach;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::signal::Signal;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;

pub(super) const DATA: &str = "/data";

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
    direct_unwritten_bytes: 4 << 10,
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
        busy_segment_bytes: 4 << 10,
    },
    write_bytes_per_second: 0,
    cool_after: std::time::Duration::from_secs(3600),
};

pub(super) struct Run {
    seed: u64,
    model: Rc<RefCell<Model>>,
    pub(super) cuts: u64,
    /// Segments that got the file of a deleted one.
    pub(super) recycled: u64,
    next_log: u64,
}

pub(super) fn owner(cores: u16) -> impl Fn(LogId) -> u16 {
    move |log| (log.partition % u32::from(cores)) as u16
}

impl Run {
    pub(super) fn new(seed: u64) -> Run {
        Run {
            seed,
            model: Rc::default(),
            cuts: 0,
            recycled: 0,
            next_log: 4,
        }
    }

    /// Several lives of one machine.
    pub(super) fn play(&mut self, breach: Option<Breach>) -> Verdict {
        let mut random = fastrand::Rng::with_seed(self.seed);
        let mut disk = DiskModel::new();
        for life in 0..4 {
            let world = World::new(random.u64(..), disk);
            if let Some(breach) = breach {
                world.plant(breach);
            }
            world.with_disk(|disk, _| {
                disk.cut_after(random.u64(5..1500));
                match random.u8(..8) {
                    0..3 => disk.cut_in_extent(random.u64(..25)),
                    3 => disk.cut_after_removal(random.u64(..2)),
                    _ => {}
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
        let started: Rc<RefCell<Vec<Rc<LogDirectory>>>> = Rc::default();
        let all = started.clone();
        let ended = world.run(async move {
            let directories = start(recovered).await;
            all.borrow_mut().clone_from(&directories);
            let finished: Rc<Signal> = Rc::default();
            let running = Rc::new(Cell::new(4));
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
        let recycled = |directory: &Rc<LogDirectory>| directory.recycled_segments();
        self.recycled += started.borrow().iter().map(recycled).sum::<u64>();
        world.enter(|| drop(started));
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

pub(super) async fn start(recovered: Vec<RecoveredCore>) -> Vec<Rc<LogDirectory>> {
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
