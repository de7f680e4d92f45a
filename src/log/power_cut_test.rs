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
use crate::runtime::breach::Breach;

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

/// What was played.
#[derive(Default)]
struct Played {
    cuts: u64,
    recycled: u64,
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_invented() {
    let seeds = runs(2500);
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
