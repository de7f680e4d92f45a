//! Changing the host, and changing it back.

use std::collections::BTreeMap;

use super::finding::Finding;
use super::target::Target;
use super::undo_file::{self, UndoEntry, UndoFile, UndoLock};
use crate::runtime::host_tree::HostTree;

/// One value to be changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// The item it is for.
    pub item: &'static str,
    /// Why.
    pub reason: String,
    /// Where.
    pub target: Target,
    /// What is there.
    pub before: String,
    /// What will be there.
    pub after: String,
}

/// What became of one value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It is there.
    Written,
    /// It was there already.
    Unchanged,
    /// The kernel does not let anybody set it: its words.
    Kept(String),
    /// Somebody else has changed it since; it is left at this.
    Foreign(String),
    /// The file is not there any more.
    Gone,
    /// It should be there and is not: why.
    Failed(String),
}

/// What the findings ask for and is not so yet, each value once.
///
/// # Errors
/// A file that cannot be read, so that its old value could not be put back.
pub fn plan(tree: &HostTree, findings: &[Finding]) -> Result<Vec<Step>, String> {
    let mut steps: Vec<Step> = Vec::new();
    let mut known = BTreeMap::new();
    for finding in findings {
        for change in &finding.changes {
            let before = change.target.current(tree)?;
            if before == change.value || known.contains_key(&change.target) {
                continue;
            }
            known.insert(change.target.clone(), ());
            steps.push(Step {
                item: finding.item,
                reason: finding.reason.clone(),
                target: change.target.clone(),
                before,
                after: change.value.clone(),
            });
        }
    }
    Ok(steps)
}

/// Notes durably what the steps will change. With `again` an undo file that is there already is
/// added to: what was there first stays noted.
///
/// # Errors
/// A sentence that says what to do, among them that there is such a file.
pub fn remember(
    tree: &HostTree,
    lock: &UndoLock,
    steps: &[Step],
    again: bool,
) -> Result<(), String> {
    let boot = undo_file::current_boot(tree);
    let known = undo_file::read(tree)?;
    if let (Some(_), false) = (&known, again) {
        return Err(format!(
            "{} exists: the host was tuned before. Run percolog tune undo first, or use --again, \
             which keeps what was noted then",
            undo_file::path(tree).display()
        ));
    }
    // What was set before a restart of the host is gone; the old values mean nothing any more.
    let mut entries = match known {
        Some(known) if known.boot == boot => known.entries,
        _ => Vec::new(),
    };
    for step in steps {
        match entries.iter_mut().find(|entry| entry.target == step.target) {
            Some(entry) => entry.after.clone_from(&step.after),
            None => entries.push(UndoEntry {
                target: step.target.clone(),
                before: step.before.clone(),
                after: step.after.clone(),
            }),
        }
    }
    undo_file::write(tree, lock, &UndoFile { boot, entries })
}

/// Writes the values. What fails does not keep the rest from being written.
pub fn write(tree: &HostTree, steps: &[Step]) -> Vec<Outcome> {
    let write = |step: &Step| put(tree, &step.target, &step.after);
    steps.iter().map(write).collect()
}

fn put(tree: &HostTree, target: &Target, value: &str) -> Outcome {
    match tree.write(&target.path(), value) {
        Ok(()) => Outcome::Written,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Outcome::Gone,
        // Interrupts that the kernel places itself answer so to everybody.
        Err(error) if matches!(target, Target::Interrupt(_)) && !is_forbidden(&error) => {
            Outcome::Kept(error.to_string())
        }
        Err(error) => Outcome::Failed(error.to_string()),
    }
}

fn is_forbidden(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};
    matches!(error.kind(), PermissionDenied | ReadOnlyFilesystem)
}

/// What an undo did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Undone {
    /// There is no undo file.
    Nothing,
    /// The host was restarted since, so that nothing is left to be undone; the file is removed.
    OtherBoot,
    /// What became of each value, the last one written first.
    Values(Vec<(UndoEntry, Outcome)>),
}

/// Puts back what was there, and removes the undo file; values that failed stay noted in it.
///
/// # Errors
/// A sentence that says what to do.
pub fn undo(tree: &HostTree, lock: &UndoLock) -> Result<Undone, String> {
    let Some(file) = undo_file::read(tree)? else {
        return Ok(Undone::Nothing);
    };
    if file.boot != undo_file::current_boot(tree) {
        undo_file::remove(tree, lock)?;
        return Ok(Undone::OtherBoot);
    }
    let values: Vec<(UndoEntry, Outcome)> = file
        .entries
        .iter()
        .rev()
        .map(|entry| (entry.clone(), put_back(tree, entry)))
        .collect();
    let is_failed = |(_, outcome): &&(UndoEntry, Outcome)| matches!(outcome, Outcome::Failed(_));
    let mut left: Vec<UndoEntry> = values
        .iter()
        .filter(is_failed)
        .map(|(entry, _)| entry.clone())
        .collect();
    if left.is_empty() {
        undo_file::remove(tree, lock)?;
    } else {
        left.reverse();
        let boot = file.boot;
        let entries = left;
        undo_file::write(tree, lock, &UndoFile { boot, entries })?;
    }
    Ok(Undone::Values(values))
}

fn put_back(tree: &HostTree, entry: &UndoEntry) -> Outcome {
    if !tree.exists(&entry.target.path()) {
        return Outcome::Gone;
    }
    match entry.target.current(tree) {
        Err(why) => Outcome::Failed(why),
        Ok(current) if current == entry.before => Outcome::Unchanged,
        Ok(current) if current != entry.after => Outcome::Foreign(current),
        Ok(_) => put(tree, &entry.target, &entry.before),
    }
}
