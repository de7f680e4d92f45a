//! Many seeds of bad weather: nothing committed is lost or changed, and when it is over the quorum
//! works. Rules that are broken on purpose are found.

use super::simulation_world::{Breach, STORM, Weather, World};

/// Ticks of bad weather.
const STORM_TICKS: usize = 600;

/// Seeds within which a broken rule must be found.
const BREACH_SEEDS: u64 = 200;

fn storm(nodes: usize, founders: usize, seed: u64, weather: Weather) -> World {
    let mut world = World::new(nodes, founders, seed, None);
    world.weather = weather;
    for _ in 0..STORM_TICKS {
        world.tick();
        assert_eq!(world.violation, None, "seed {seed} at {}", world.now);
    }
    world
}

#[test]
fn three_nodes_agree_through_every_storm() {
    for seed in 0..60 {
        storm(3, 3, seed, STORM).heal();
    }
}

#[test]
fn five_nodes_agree_through_every_storm() {
    for seed in 0..30 {
        storm(5, 5, seed, STORM).heal();
    }
}

#[test]
fn members_that_come_and_go_agree_through_every_storm() {
    let weather = Weather {
        changes_members: true,
        ..STORM
    };
    for seed in 0..40 {
        storm(5, 3, seed, weather).heal();
    }
}

#[test]
fn one_seed_run_twice_sends_the_same_bytes() {
    let trace = |seed| storm(3, 3, seed, STORM).trace;
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6));
}

/// The first seed whose storm finds a violation.
fn seed_that_finds(breach: Breach) -> Option<u64> {
    (0..BREACH_SEEDS).find(|seed| {
        let mut world = World::new(3, 3, *seed, Some(breach));
        world.weather = Weather {
            crashes_permille: 60,
            ..STORM
        };
        (0..STORM_TICKS).any(|_| {
            world.tick();
            world.violation.is_some()
        })
    })
}

#[test]
fn a_vote_that_leaves_before_it_is_durable_is_found() {
    assert!(seed_that_finds(Breach::VoteBeforeFlush).is_some());
}

#[test]
fn an_entry_that_is_acknowledged_before_it_is_durable_is_found() {
    assert!(seed_that_finds(Breach::AppendBeforeFlush).is_some());
}

#[test]
fn the_weather_that_finds_breaches_finds_none_without() {
    for seed in 0..30 {
        let weather = Weather {
            crashes_permille: 60,
            ..STORM
        };
        storm(3, 3, seed, weather).heal();
    }
}
