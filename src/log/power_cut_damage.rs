//! Damage to what was acknowledged: what recovery makes of it, and what repair leaves.

use std::path::Path;

use super::position::Offset;
use super::power_cut_history::{DATA, SETTINGS, start};
use super::power_cut_workload::{append_batch, await_flushed, log_id, random_batch};
use super::recovery::{RecoveredCore, recover, repair_directory};
use crate::runtime::breach::Breach;
use crate::runtime::clock;
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::World;

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
            let appended = append_batch(&log, &header, &payload).await;
            assert!(await_flushed(&log, appended.expect("healthy").end).await);
        }
        // The closing group says that all before it was complete.
        clock::sleep(std::time::Duration::from_millis(50)).await;
    });
    written.expect("no cut is due");
    world.disk_after_power_cut()
}

pub(super) fn journal_groups(
    disk: &DiskModel,
) -> Vec<(std::path::PathBuf, usize, super::group::GroupHeader)> {
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
fn a_log_is_known_although_the_group_that_created_it_is_lost() {
    let world = World::new(11, DiskModel::new());
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    let recovered = recovered.expect("fresh").0;
    let written = world.run(async move {
        let directory = start(recovered).await.remove(0);
        // The second one begins behind the group that is lost.
        for partition in 0..2 {
            let log =
                directory.create_log(log_id(partition), &format!("log-{partition}"), SETTINGS);
            let (header, payload) = random_batch();
            let appended = append_batch(&log, &header, &payload).await;
            assert!(await_flushed(&log, appended.expect("healthy").end).await);
        }
        clock::sleep(std::time::Duration::from_millis(50)).await;
    });
    written.expect("no cut is due");
    let mut disk = world.disk_after_power_cut();
    let (path, position, header) = journal_groups(&disk).remove(0);
    assert_eq!(header.sequence, 1);
    disk.flip_bit(&path, position + 30, 3);
    let recovered = World::new(12, disk).enter(|| recover(Path::new(DATA), 1, |_| 0));
    let logs = &recovered.expect("others are served").0[0].logs;
    let damaged = |log: &crate::log::partition_log::LogImage| log.damage.is_some();
    let known: Vec<_> = logs.iter().map(|log| (log.id, damaged(log))).collect();
    assert_eq!(known, [(log_id(0), true), (log_id(1), false)]);
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
