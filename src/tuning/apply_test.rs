//! Check, apply, check again, undo: over a host of plain files.

use super::apply::{self, Outcome, Step, Undone};
use super::check;
use super::fake_host::FakeHost;
use super::script;
use super::undo_file::{self, UndoLock};

/// Files of an untuned host, and what they become.
const UNTUNED: &[(&str, &str, &str)] = &[
    ("proc/sys/vm/swappiness", "60", "1"),
    ("proc/sys/net/core/somaxconn", "128", "4096"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512", "4096"),
    ("proc/irq/30/smp_affinity_list", "0-3", "0"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "[always] madvise never",
        "madvise",
    ),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "powersave",
        "performance",
    ),
    (
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        "powersave",
        "performance",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "hpet",
        "tsc",
    ),
    ("sys/block/sda/queue/scheduler", "none [bfq]", "none"),
    ("sys/block/sda/queue/nomerges", "0", "2"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "0", "5"),
    ("sys/class/net/eth0/queues/tx-1/xps_cpus", "0", "a"),
];

fn untuned() -> FakeHost {
    let fake = FakeHost::tuned();
    for (path, before, _) in UNTUNED {
        fake.put(path, before);
    }
    fake
}

fn lock(fake: &FakeHost) -> UndoLock {
    undo_file::lock(&fake.tree()).expect("nobody else")
}

fn plan(fake: &FakeHost) -> Vec<Step> {
    apply::plan(&fake.tree(), &check::check(&fake.host, &[])).expect("readable")
}

/// A file that was written shows its value without brackets here, unlike in a kernel.
fn assert_before(fake: &FakeHost) {
    for (path, before, _) in UNTUNED {
        let chosen = before.split(['[', ']']).nth(1).unwrap_or(before);
        let now = fake.get(path);
        assert!(now == *before || now == chosen, "{path}: {now}");
    }
}

fn assert_after(fake: &FakeHost) {
    for (path, _, after) in UNTUNED {
        assert_eq!(fake.get(path), *after, "{path}");
    }
}

#[test]
fn check_apply_check_undo_check() {
    let fake = untuned();
    let tree = fake.tree();
    let first = check::check(&fake.host, &[]);
    assert!(check::needs_attention(&first));
    let steps = plan(&fake);
    assert_eq!(steps.len(), UNTUNED.len());
    assert_before(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    let outcomes = apply::write(&tree, &steps);
    assert!(
        outcomes.iter().all(|outcome| *outcome == Outcome::Written),
        "{outcomes:?}"
    );
    assert_after(&fake);
    let again = check::check(&fake.host, &[]);
    assert!(!check::needs_attention(&again), "{again:?}");
    assert!(plan(&fake).is_empty());
    let Undone::Values(values) = apply::undo(&tree, &lock(&fake)).expect("undone") else {
        panic!("nothing was undone");
    };
    assert!(
        values
            .iter()
            .all(|(_, outcome)| *outcome == Outcome::Written)
    );
    assert_before(&fake);
    assert_eq!(undo_file::read(&tree), Ok(None));
    assert_eq!(apply::undo(&tree, &lock(&fake)), Ok(Undone::Nothing));
}

#[test]
fn an_apply_that_stops_anywhere_can_be_undone() {
    for written in 0..=UNTUNED.len() {
        let fake = untuned();
        let tree = fake.tree();
        let steps = plan(&fake);
        apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
        apply::write(&tree, &steps[..written]);
        apply::undo(&tree, &lock(&fake)).expect("undone");
        assert_before(&fake);
        assert_eq!(undo_file::read(&tree), Ok(None));
    }
}

#[test]
fn an_undo_that_stops_anywhere_can_be_repeated() {
    let fake = untuned();
    let tree = fake.tree();
    let steps = plan(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    apply::write(&tree, &steps);
    // Some values are back already, and the file is still there.
    for (path, before, _) in &UNTUNED[..5] {
        fake.put(path, before);
    }
    let Undone::Values(values) = apply::undo(&tree, &lock(&fake)).expect("undone") else {
        panic!("nothing was undone");
    };
    let unchanged = values
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Unchanged);
    assert_eq!(unchanged.count(), 5);
    assert_before(&fake);
}

#[test]
fn what_was_there_first_stays_noted() {
    let fake = untuned();
    let tree = fake.tree();
    let steps = plan(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    apply::write(&tree, &steps);
    fake.put("proc/sys/vm/swappiness", "30");
    let later = plan(&fake);
    assert_eq!(later.len(), 1);
    let refused = apply::remember(&tree, &lock(&fake), &later, false).expect_err("there is one");
    assert!(
        refused.contains("tune undo") && refused.contains("--again"),
        "{refused}"
    );
    apply::remember(&tree, &lock(&fake), &later, true).expect("told");
    apply::write(&tree, &later);
    apply::undo(&tree, &lock(&fake)).expect("undone");
    assert_before(&fake);
}

#[test]
fn after_a_restart_of_the_host_nothing_is_undone() {
    let fake = untuned();
    let tree = fake.tree();
    let steps = plan(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    apply::write(&tree, &steps);
    fake.put("proc/sys/kernel/random/boot_id", "another\n");
    fake.put("proc/sys/vm/swappiness", "40");
    let later = plan(&fake);
    assert!(apply::remember(&tree, &lock(&fake), &later, false).is_err());
    apply::remember(&tree, &lock(&fake), &later, true).expect("told");
    let file = undo_file::read(&tree).expect("sound").expect("there");
    assert_eq!((file.boot.as_str(), file.entries.len()), ("another", 1));
    fake.put("proc/sys/kernel/random/boot_id", "a third\n");
    assert_eq!(apply::undo(&tree, &lock(&fake)), Ok(Undone::OtherBoot));
    assert_eq!(undo_file::read(&tree), Ok(None));
    assert_eq!(fake.get("proc/sys/vm/swappiness"), "40");
}

#[test]
fn what_others_changed_or_took_away_is_left_alone() {
    let fake = untuned();
    let tree = fake.tree();
    let steps = plan(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    apply::write(&tree, &steps);
    fake.put("proc/sys/vm/swappiness", "5");
    fake.remove("proc/irq/30");
    let Undone::Values(values) = apply::undo(&tree, &lock(&fake)).expect("undone") else {
        panic!("nothing was undone");
    };
    let outcome = |name: &str| {
        let found = values
            .iter()
            .find(|(entry, _)| entry.target.to_string() == name);
        found.expect("noted").1.clone()
    };
    assert_eq!(outcome("swappiness"), Outcome::Foreign("5".to_owned()));
    assert_eq!(outcome("interrupt 30"), Outcome::Gone);
    assert_eq!(fake.get("proc/sys/vm/swappiness"), "5");
    assert_eq!(undo_file::read(&tree), Ok(None));
}

#[test]
fn what_cannot_be_put_back_stays_noted() {
    let fake = untuned();
    let tree = fake.tree();
    let steps = plan(&fake);
    apply::remember(&tree, &lock(&fake), &steps, false).expect("noted");
    apply::write(&tree, &steps);
    fake.put("proc/sys/vm/swappiness", "not a value at all");
    apply::undo(&tree, &lock(&fake)).expect("undone");
    let file = undo_file::read(&tree).expect("sound").expect("there");
    assert_eq!(file.entries.len(), 1);
    fake.put("proc/sys/vm/swappiness", "1");
    apply::undo(&tree, &lock(&fake)).expect("undone");
    assert_before(&fake);
    assert_eq!(undo_file::read(&tree), Ok(None));
}

#[test]
fn a_damaged_undo_file_stops_everything_that_would_lose_it() {
    let fake = untuned();
    let tree = fake.tree();
    fake.put(
        "var/lib/percolog-tune/tune.undo",
        "percolog tune undo 1\nboot x\n",
    );
    let steps = plan(&fake);
    let lock = lock(&fake);
    for refused in [
        apply::remember(&tree, &lock, &steps, false).expect_err("damaged"),
        apply::remember(&tree, &lock, &steps, true).expect_err("damaged"),
        apply::undo(&tree, &lock).expect_err("damaged"),
    ] {
        assert!(
            refused.contains("tune.undo") && refused.contains("by hand"),
            "{refused}"
        );
    }
    assert_before(&fake);
}

#[test]
fn one_tuner_at_a_time() {
    let fake = untuned();
    let lock = undo_file::lock(&fake.tree()).expect("nobody else");
    let refused = undo_file::lock(&fake.tree()).expect_err("held");
    assert!(refused.contains("another percolog tune"), "{refused}");
    drop(lock);
    undo_file::lock(&fake.tree()).expect("free again");
}

#[test]
fn the_script_does_the_same_and_changes_nothing_until_it_is_run() {
    let fake = untuned();
    let steps = plan(&fake);
    let text = script::render(&steps);
    assert_before(&fake);
    for step in &steps {
        let line = format!(
            "put '/{}' '{}' # was {}",
            step.target.path(),
            step.after,
            step.before
        );
        assert!(text.contains(&line), "{line}\n{text}");
    }
    let here = fake.tree().path("");
    let elsewhere = text.replace("put '/", &format!("put '{}", here.display()));
    let script = fake.tree().path("tune.sh");
    std::fs::write(&script, elsewhere).expect("written");
    let status = std::process::Command::new("sh")
        .arg(&script)
        .status()
        .expect("sh");
    assert!(status.success());
    assert_after(&fake);
    assert!(script::render(&[]).contains("nothing to change"));
}
