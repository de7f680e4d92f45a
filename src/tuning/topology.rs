//! Which CPUs are hyperthreads of one core, and which memory is near to them.

use std::collections::{BTreeMap, BTreeSet};

use super::cpu_set;
use crate::runtime::host_tree::HostTree;

/// See the head of this file. A CPU that the kernel tells nothing about stands alone.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// The first hyperthread of the core that a CPU belongs to.
    core: BTreeMap<usize, usize>,
    /// The NUMA node of a CPU.
    node: BTreeMap<usize, usize>,
}

impl Topology {
    /// Of these CPUs.
    #[must_use]
    pub fn read(tree: &HostTree, cpus: &[usize]) -> Topology {
        let mut topology = Topology::default();
        for cpu in cpus {
            let path = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
            let siblings = tree.read(&path).text().and_then(cpu_set::parse_list);
            if let Some(first) = siblings.as_ref().and_then(BTreeSet::first) {
                topology.core.insert(*cpu, *first);
            }
        }
        for name in tree.names("sys/devices/system/node") {
            let number = name.strip_prefix("node").map(str::parse);
            let path = format!("sys/devices/system/node/{name}/cpulist");
            let members = tree.read(&path).text().and_then(cpu_set::parse_list);
            if let (Some(Ok(number)), Some(members)) = (number, members) {
                topology
                    .node
                    .extend(members.into_iter().map(|cpu| (cpu, number)));
            }
        }
        topology
    }

    /// The core of a CPU, named by its first hyperthread.
    #[must_use]
    pub fn core_of(&self, cpu: usize) -> usize {
        self.core.get(&cpu).copied().unwrap_or(cpu)
    }

    /// Whether the kernel says which CPUs are hyperthreads of one core.
    #[must_use]
    pub fn knows_cores(&self) -> bool {
        !self.core.is_empty()
    }

    /// CPUs of `cpus` that share a core with another one of them.
    #[must_use]
    pub fn sharing(&self, cpus: &BTreeSet<usize>) -> BTreeSet<usize> {
        let alone = |cpu: &usize| {
            let mut others = cpus.iter().filter(|other| *other != cpu);
            !others.any(|other| self.core_of(*other) == self.core_of(*cpu))
        };
        cpus.iter().copied().filter(|cpu| !alone(cpu)).collect()
    }

    /// The NUMA nodes of `cpus`, as far as they are known.
    #[must_use]
    pub fn nodes_of(&self, cpus: &BTreeSet<usize>) -> BTreeSet<usize> {
        cpus.iter()
            .filter_map(|cpu| self.node.get(cpu).copied())
            .collect()
    }
}
