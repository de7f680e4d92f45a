//! Power cuts on the simulated disk, against a model.
//!
//! One seed is one history: a few cores and logs, random appends, checkpoints, deletions and log
//! start moves, a cut at a random disk event (or an exit of the process), recovery (which may be cut
//! too), and again. After each recovery every log must hold a prefix of what was enqueued, byte for
//! byte, that includes everything acknowledged.
//!
//! `PERCOLOG_SEED` repeats one seed, `PERCOLOG_RUNS` sets their number, `PERCOLOG_BREACH` looks for
//! one planted breach only.

use super::power_cut_history::Run;
use super::power_cut_model::Verdict;
use super::power_cut_recycling::readers_keep_their_segments;
use crate::runtime::breach::Breach;

/// The seeds to play.
pub(super) fn runs(default: u64) -> std::ops::Range<u64> {
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

/// What was played.
#[derive(Default)]
struct Played {
    cuts: u64,
    recycled: u64,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented() {
    let seeds = runs(2200);
    let are_many = seeds.end - seeds.start > 100;
    // Worlds belong to their thread, so seeds are played side by side.
    let played = std::thread::scope(|scope| {
        let parts = [0, 1].map(|part| {
            let seeds = seeds.clone().skip(part).step_by(2);
            scope.spawn(move || seeds.fold(Played::default(), play_seed))
        });
        let joined = parts.map(std::thread::ScopedJoinHandle::join);
        joined.map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    let cuts: u64 = played.iter().map(|part| part.cuts).sum();
    let recycled: u64 = played.iter().map(|part| part.recycled).sum();
    println!("{cuts} cuts, {recycled} recycled segments");
    assert!(!are_many || recycled > 0, "no history recycles a segment");
}

/// Plays one more seed.
fn play_seed(before: Played, seed: u64) -> Played {
    let mut run = Run::new(seed);
    let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run.play(None)));
    match verdict {
        Ok(Ok(())) => Played {
            cuts: before.cuts + run.cuts,
            recycled: before.recycled + run.recycled,
        },
        Ok(Err(error)) => panic!("PERCOLOG_SEED={seed}: {error}"),
        Err(_) => panic!("PERCOLOG_SEED={seed}: see the panic above"),
    }
}

/// Within how many seeds a planted breach must show.
const SEEDS_TO_FIND: u64 = 20_000;

/// Plays one seed with a breach; what is wrong then.
type History = fn(u64, Option<Breach>) -> Verdict;

fn random_history(seed: u64, breach: Option<Breach>) -> Verdict {
    Run::new(seed).play(breach)
}

/// Every breach that histories find, and which histories do.
const PLANTED: [(Breach, History); 17] = [
    (Breach::AcknowledgeEarly, random_history),
    (Breach::AcknowledgeOutOfOrder, random_history),
    (Breach::DropGroupDurability, random_history),
    (Breach::DropExtentDurability, random_history),
    (Breach::RewriteBlockUnderImage, random_history),
    (Breach::ReplayOverDirect, random_history),
    (Breach::SkipExtentCheck, random_history),
    (Breach::RecycleWhileRead, readers_keep_their_segments),
    (Breach::EffectsBeforeTold, random_history),
    (Breach::CheckpointBeforeData, random_history),
    (Breach::SkipBlockRebase, random_history),
    (Breach::NameBeforeDirectorySync, random_history),
    (Breach::StaleSuccessor, random_history),
    (Breach::ReuseBeforeCheckpoint, random_history),
    (Breach::TruncateBeforeEntry, random_history),
    (Breach::ReplayIntoSwapped, random_history),
    (Breach::SwapBeforeEntry, random_history),
];

fn is_found(breach: Breach, history: History) {
    let started = std::time::Instant::now();
    let found = (0..SEEDS_TO_FIND).find(|seed| {
        let play = || history(*seed, Some(breach));
        let verdict = std::panic::catch_unwind(std::panic::AssertUnwindSafe(play));
        !matches!(verdict, Ok(Ok(())))
    });
    let seconds = started.elapsed().as_secs_f32();
    println!("{breach:?}: found by seed {found:?} after {seconds:.1} s");
    assert!(
        found.is_some(),
        "{breach:?} is not found within {SEEDS_TO_FIND} seeds"
    );
}

#[test]
fn planted_breaches_are_found() {
    let only = std::env::var("PERCOLOG_BREACH").ok();
    let wanted = |(breach, _): &&(Breach, History)| {
        only.as_ref()
            .is_none_or(|name| *name == format!("{breach:?}"))
    };
    let queue = std::sync::Mutex::new(PLANTED.iter().filter(wanted));
    let next = || queue.lock().expect("held for no panic").next();
    // Worlds belong to their thread, so breaches are looked for side by side.
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let missed = std::thread::scope(|scope| {
        let search = || {
            scope.spawn(|| {
                while let Some((breach, history)) = next() {
                    is_found(*breach, *history);
                }
            })
        };
        let searches = [search(), search()];
        searches.into_iter().find_map(|search| search.join().err())
    });
    std::panic::set_hook(quiet);
    if let Some(missed) = missed {
        std::panic::resume_unwind(missed);
    }
}
