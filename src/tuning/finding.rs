//! What a look at one item of the host found.

use super::target::Target;

/// How much it matters, in rising order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The host has no such thing.
    NotApplicable,
    /// As it should be.
    Good,
    /// Worth knowing; little to gain.
    Hint,
    /// Costs throughput or latency, or will fail under load.
    Warning,
    /// The broker does not run, or data are in danger.
    Error,
}

impl Severity {
    /// Its name, for people and programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Severity::NotApplicable => "not applicable",
            Severity::Good => "ok",
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// A value to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Change {
    /// Where.
    pub target: Target,
    /// What.
    pub value: String,
}

/// See the head of this file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Name of the item.
    pub item: &'static str,
    /// The device it is about, if there can be several.
    pub device: Option<String>,
    /// How much it matters.
    pub severity: Severity,
    /// What is there.
    pub found: String,
    /// What should be there.
    pub should_be: String,
    /// Why, in a sentence or two.
    pub reason: String,
    /// What `apply` would write; nothing when it cannot or need not.
    pub changes: Vec<Change>,
    /// What a person can do where `apply` cannot.
    pub remedy: Option<String>,
}

impl Finding {
    /// Something that was looked at; good unless more is said.
    #[must_use]
    pub fn new(
        item: &'static str,
        severity: Severity,
        found: impl Into<String>,
        should_be: impl Into<String>,
        reason: impl Into<String>,
    ) -> Finding {
        Finding {
            item,
            device: None,
            severity,
            found: found.into(),
            should_be: should_be.into(),
            reason: reason.into(),
            changes: Vec::new(),
            remedy: None,
        }
    }

    /// Something this host does not have.
    #[must_use]
    pub fn not_applicable(item: &'static str, why: impl Into<String>) -> Finding {
        Finding::new(item, Severity::NotApplicable, "-", "-", why)
    }

    /// Something that says what nobody understands. It is left alone.
    #[must_use]
    pub fn odd(item: &'static str, what: &str, should_be: impl Into<String>) -> Finding {
        let shown: String = what
            .chars()
            .filter(|letter| !letter.is_control())
            .take(80)
            .collect();
        let reason = "The kernel's answer cannot be made sense of, so nothing is said about this \
                      item and nothing is changed.";
        Finding::new(
            item,
            Severity::Hint,
            format!("odd: {shown}"),
            should_be,
            reason,
        )
    }

    /// About this device.
    #[must_use]
    pub fn of(mut self, device: &str) -> Finding {
        self.device = Some(device.to_owned());
        self
    }

    /// With what `apply` would write.
    #[must_use]
    pub fn changing(mut self, changes: impl IntoIterator<Item = Change>) -> Finding {
        self.changes.extend(changes);
        self
    }

    /// With what a person can do.
    #[must_use]
    pub fn remedied(mut self, remedy: impl Into<String>) -> Finding {
        self.remedy = Some(remedy.into());
        self
    }
}
