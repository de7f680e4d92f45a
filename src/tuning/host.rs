//! What the items look at.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::cpu_set;
use super::finding::{Change, Finding, Severity};
use super::target::Target;
use crate::runtime::disk_probe::Samples;
use crate::runtime::host::DirectoryFacts;
use crate::runtime::host_tree::{HostTree, Reading};

/// A data directory and what had to be asked or measured about it.
#[derive(Clone, Debug)]
pub struct DataDirectory {
    /// Its absolute path without symbolic links.
    pub path: PathBuf,
    /// What the kernel says.
    pub facts: DirectoryFacts,
    /// Durable writes of 4 KiB, one at a time; why there are none, otherwise.
    pub flushes: Result<Samples, String>,
}

/// One host, and the broker that is to run on it.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its files.
    pub tree: HostTree,
    /// CPUs that serve.
    pub data_cpus: BTreeSet<usize>,
    /// Where the data are to lie; why nothing can be said about one, otherwise.
    pub directories: Vec<Result<DataDirectory, String>>,
    /// Memory that the broker may come to use by its settings.
    pub memory_needed_bytes: u64,
}

impl Host {
    /// CPUs that are switched on.
    #[must_use]
    pub fn online(&self) -> BTreeSet<usize> {
        let online = self.tree.read("sys/devices/system/cpu/online");
        let listed = online.text().and_then(cpu_set::parse_list);
        listed.unwrap_or_else(|| self.data_cpus.clone())
    }

    /// Looks at each data directory; the findings name it where there are several.
    pub(super) fn each_directory(
        &self,
        item: &'static str,
        look: impl Fn(&DataDirectory) -> Finding,
    ) -> Vec<Finding> {
        let look = |directory: &Result<DataDirectory, String>| match directory {
            Err(why) => Finding::not_applicable(item, why),
            Ok(directory) if self.directories.len() == 1 => look(directory),
            Ok(directory) => look(directory).of(&directory.path.display().to_string()),
        };
        self.directories.iter().map(look).collect()
    }

    /// CPUs that are switched on and do not serve.
    #[must_use]
    pub fn other_cpus(&self) -> BTreeSet<usize> {
        self.online().difference(&self.data_cpus).copied().collect()
    }
}

/// A target that ought to hold a number of at least `least`.
pub(super) struct LeastNumber {
    pub(super) item: &'static str,
    pub(super) target: Target,
    pub(super) least: u64,
    pub(super) severity: Severity,
    pub(super) reason: &'static str,
}

impl LeastNumber {
    pub(super) fn look(self, tree: &HostTree) -> Finding {
        let should_be = format!("{} or more", self.least);
        match tree.read(&self.target.path()) {
            Reading::Missing => {
                Finding::not_applicable(self.item, "The kernel has no such setting.")
            }
            Reading::Odd(why) => Finding::odd(self.item, &why, should_be),
            Reading::Text(text) => match text.parse::<u64>() {
                Err(_) => Finding::odd(self.item, &text, should_be),
                Ok(number) if number >= self.least => {
                    Finding::new(self.item, Severity::Good, text, should_be, self.reason)
                }
                Ok(_) => Finding::new(self.item, self.severity, text, should_be, self.reason)
                    .changing([Change {
                        target: self.target,
                        value: self.least.to_string(),
                    }]),
            },
        }
    }
}

/// "3 CPUs", "1 CPU".
pub(super) fn counted(count: usize, one: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {one}{ending}")
}
