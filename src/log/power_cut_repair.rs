//! A journal group with a swap is damaged after it was acknowledged: whatever of the swap is on the
//! disk, repair must leave a log that is served and right up to its end.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::bytes::Fields;
use super::entry::Entry;
use super::group::{GROUP_HEADER_BYTES, GroupHeader};
use super::partition_log::{LogImage, PartitionLog};
use super::position::Offset;
use super::power_cut_compaction::{compact, keyed_batch, note_cut};
use super::power_cut_damage::journal_groups;
use super::power_cut_history::{DATA, start};
use super::power_cut_model::{Model, Verdict, compare};
use super::power_cut_test::runs;
use super::power_cut_workload::{append_to, log_id, random_batch, random_below};
use super::recovery::{RecoveredCore, recover, repair_directory};
use super::segment::segment_file_name;
use super::swap::{Swap, cleaned_file_name};
use crate::runtime::clock;
use crate::runtime::executor::{Queue, spawn};
use crate::runtime::sim::disk_model::DiskModel;
use crate::runtime::sim::world::{World, current};

/// The log that is compacted, and one beside it.
const KEYED: u64 = 3;
const PLAIN: u64 = 0;

/// What became of a damaged swap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// No group with a swap was acknowledged, or a checkpoint covers it.
    Nothing,
    /// Recovery could prove what happened.
    Proven,
    /// The log was offline and repair kept all of it.
    Kept,
    /// The log was offline and repair cut it.
    Cut,
}

/// A machine that loses its power while a log is compacted.
fn disk_with_swaps(seed: u64, model: &Rc<RefCell<Model>>) -> DiskModel {
    let world = World::new(seed, DiskModel::new());
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    let recovered = recovered.expect("fresh").0;
    let model = model.clone();
    let life: Result<(), _> = world.run(async move {
        let directories = start(recovered).await;
        append_to(&directories, &model, PLAIN, random_batch(), true).await;
        for _ in 0..20 + random_below(30) {
            append_to(&directories, &model, KEYED, keyed_batch(), true).await;
        }
        if random_below(2) == 0 {
            directories[0].ask_for_checkpoint();
        }
        clock::sleep(Duration::from_millis(50)).await;
        for _ in 0..random_below(20) {
            append_to(&directories, &model, KEYED, keyed_batch(), true).await;
        }
        let log = directories[0].log(log_id(KEYED)).expect("it was made");
        let events = 20 + random_below(200);
        current().with_disk(|disk, _| disk.cut_after(events));
        spawn(Queue::Background, async move {
            loop {
                compact(&log).await;
                clock::sleep(Duration::from_millis(1)).await;
            }
        });
        loop {
            append_to(&directories, &model, PLAIN, random_batch(), true).await;
            if random_below(3) == 0 {
                append_to(&directories, &model, KEYED, keyed_batch(), true).await;
            }
        }
    });
    assert!(life.is_err(), "the cut is due");
    world.disk_after_power_cut()
}

fn swap_of(content: &[u8], position: usize, header: &GroupHeader) -> Option<Swap> {
    let body = &content[position + GROUP_HEADER_BYTES..][..header.body_length as usize];
    let mut fields = Fields::new(body);
    let entries = std::iter::from_fn(|| Entry::decode(&mut fields).ok());
    let mut entries = entries.take(header.entry_count as usize);
    entries.find_map(|entry| match entry {
        Entry::Swap { swap, .. } => Some(swap),
        _ => None,
    })
}

/// Damages the last acknowledged group with a swap; none when there is no such group.
fn damage_swap(disk: &mut DiskModel, random: &mut fastrand::Rng) -> Option<Swap> {
    let groups = journal_groups(disk);
    let told = groups.iter().map(|(_, _, header)| header.completed).max();
    let acknowledged = groups.iter().rev();
    let mut acknowledged = acknowledged.filter(|(_, _, header)| Some(header.sequence) <= told);
    let ((path, position, header), swap) = acknowledged.find_map(|group| {
        let (path, position, header) = group;
        let swap = swap_of(&disk.content(path), *position, header)?;
        Some((group.clone(), swap))
    })?;
    let byte = if random.bool() {
        30
    } else {
        GROUP_HEADER_BYTES + random.usize(..header.body_length as usize)
    };
    disk.flip_bit(&path, position + byte, random.u8(..8));
    Some(swap)
}

/// The file of a compacted segment that has its name, with its content, if it has any: over an empty
/// one recovery may well write again what the journal holds of the old segment.
fn swapped_in(disk: &DiskModel, swap: &Swap) -> Option<(PathBuf, Vec<u8>)> {
    let directory = Path::new(DATA).join("log-3");
    let cleaned = directory.join(cleaned_file_name(swap.base_offset, swap.segment));
    let path = directory.join(segment_file_name(swap.base_offset));
    let has_name = disk.lookup(&cleaned).is_none() && disk.lookup(&path).is_some();
    let content = has_name.then(|| disk.content(&path));
    let content = content.filter(|content| !content.is_empty())?;
    Some((path, content))
}

fn recovered(world: &Rc<World>) -> (RecoveredCore, usize) {
    let recovered = world.enter(|| recover(Path::new(DATA), 1, |_| 0));
    let (mut cores, summary) = recovered.expect("others are served");
    (cores.remove(0), summary.damaged)
}

/// Every file in the log's directory belongs to one of its segments.
fn check_files(world: &Rc<World>, image: &LogImage) -> Verdict {
    let directory = Path::new(DATA).join(&image.directory);
    let segments = image.segments.iter();
    let named: BTreeSet<PathBuf> = segments
        .map(|segment| directory.join(segment_file_name(segment.base_offset)))
        .collect();
    let files = world.with_disk(|disk, _| disk.files());
    let files: Vec<PathBuf> = files.into_iter().map(|(path, _)| path).collect();
    for path in &files {
        if path.parent() == Some(&directory) && !named.contains(&path.with_extension("log")) {
            return Err(format!("{} stays", path.display()));
        }
    }
    match named.iter().find(|path| !files.contains(path)) {
        Some(path) => Err(format!("{} is missing", path.display())),
        None => Ok(()),
    }
}

/// The model as it is when every log ends where it was found to end.
fn accept_loss(model: &mut Model, image: &LogImage) {
    let Some(expected) = model.logs.get_mut(&image.id) else {
        return;
    };
    let end = image.end.0;
    note_cut(image.id, expected, end);
    expected.acknowledged = expected.acknowledged.min(end);
}

fn play(seed: u64) -> Result<Fate, String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let model: Rc<RefCell<Model>> = Rc::default();
    let mut disk = disk_with_swaps(random.u64(..), &model);
    let Some(swap) = damage_swap(&mut disk, &mut random) else {
        return Ok(Fate::Nothing);
    };
    let kept = swapped_in(&disk, &swap);
    let world = World::new(random.u64(..), disk);
    // A start before the repair changes nothing.
    let (core, damaged) = recovered(&world);
    let is_keyed = |image: &&LogImage| image.id == log_id(KEYED);
    let was_damaged = core.logs.iter().find(is_keyed).expect("it was made");
    let was_damaged = was_damaged.damage.is_some();
    let tried = world.enter(|| repair_directory(Path::new(DATA), &[], true));
    let repaired = world.enter(|| repair_directory(Path::new(DATA), &[], false));
    let (tried, repaired) = (tried.expect("readable"), repaired.expect("readable"));
    if tried != repaired || repaired.len() != damaged {
        return Err(format!(
            "{damaged} damaged: {tried:?} and then {repaired:?}"
        ));
    }
    if let Some((path, content)) = kept
        && world.with_disk(|disk, _| disk.content(&path)) != content
    {
        return Err(format!("{} is not what was swapped in", path.display()));
    }
    let (core, damaged) = recovered(&world);
    if damaged > 0 {
        return Err("damaged after the repair".into());
    }
    let fate = match repaired.iter().find(|log| log.directory == "log-3") {
        None if was_damaged => return Err("not repaired".into()),
        None => Fate::Proven,
        Some(log) if log.end == log.known_end => Fate::Kept,
        Some(_) => Fate::Cut,
    };
    for image in &core.logs {
        check_files(&world, image)?;
        accept_loss(&mut model.borrow_mut(), image);
    }
    serve(&world, core, model)?;
    Ok(fate)
}

/// The logs are right, take appends and can be compacted.
fn serve(world: &Rc<World>, core: RecoveredCore, model: Rc<RefCell<Model>>) -> Verdict {
    let served = world.run(async move {
        let directories = start(vec![core]).await;
        compare(&directories[0], &model).await?;
        for _ in 0..20 {
            append_to(&directories, &model, KEYED, keyed_batch(), true).await;
            append_to(&directories, &model, PLAIN, random_batch(), true).await;
        }
        clock::sleep(Duration::from_millis(50)).await;
        let log: Rc<PartitionLog> = directories[0].log(log_id(KEYED)).expect("found");
        compact(&log).await;
        if log.end_offset() == Offset(0) {
            return Err("nothing was appended".into());
        }
        compare(&directories[0], &model).await
    });
    served.expect("no cut is due")
}

#[test]
fn repair_leaves_a_right_log_after_the_group_of_a_swap_was_damaged() {
    let mut fates = Vec::new();
    for seed in runs(300) {
        let fate = play(seed).unwrap_or_else(|error| panic!("PERCOLOG_SEED={seed}: {error}"));
        fates.push(fate);
    }
    let count = |fate| fates.iter().filter(|found| **found == fate).count();
    let counts = [Fate::Nothing, Fate::Proven, Fate::Kept, Fate::Cut].map(count);
    println!("nothing, proven, kept, cut: {counts:?}");
    let are_many = fates.len() > 100;
    let all = counts[1..].iter().all(|count| *count > 0);
    assert!(all || !are_many, "{counts:?}");
}
