//! A host made of plain files, for tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::check;
use super::finding::{Finding, Severity};
use super::host::{DataDirectory, Host};
use crate::runtime::disk_probe::Samples;
use crate::runtime::host::DirectoryFacts;
use crate::runtime::host_tree::HostTree;

/// See the head of this file.
pub(super) struct FakeHost {
    folder: tempfile::TempDir,
    /// What has to be asked instead of read.
    pub(super) host: Host,
}

impl FakeHost {
    /// Without any file. CPUs 1 to 3 serve; the data lie on device 8:0.
    pub(super) fn new() -> FakeHost {
        let folder = tempfile::tempdir().expect("tempdir");
        let host = Host {
            tree: HostTree::new(folder.path()),
            data_cpus: BTreeSet::from([1, 2, 3]),
            directories: vec![Ok(DataDirectory {
                path: PathBuf::from("/data"),
                facts: DirectoryFacts {
                    device: (8, 0),
                    direct_alignment_bytes: Some((512, 512)),
                },
                flushes: Ok(Samples {
                    elapsed_us: 1000,
                    bytes: 4096 * 5,
                    latencies_us: vec![200; 5],
                }),
            })],
            memory_needed_bytes: 1 << 30,
        };
        FakeHost { folder, host }
    }

    /// A host that is as it should be, as far as it can be said in files.
    pub(super) fn tuned() -> FakeHost {
        let fake = FakeHost::new();
        for (path, text) in TUNED {
            fake.put(path, text);
        }
        fake
    }

    pub(super) fn tree(&self) -> HostTree {
        self.host.tree.clone()
    }

    /// The one data directory.
    pub(super) fn directory(&mut self) -> &mut DataDirectory {
        self.host.directories[0].as_mut().expect("set")
    }

    /// Makes a file.
    pub(super) fn put(&self, path: &str, text: &str) {
        self.put_bytes(path, text.as_bytes());
    }

    /// Makes a file.
    pub(super) fn put_bytes(&self, path: &str, bytes: &[u8]) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("below the root")).expect("made");
        fs::write(path, bytes).expect("written");
    }

    /// Takes a file or a directory away.
    pub(super) fn remove(&self, path: &str) {
        let path = self.folder.path().join(path);
        if path.is_dir() {
            fs::remove_dir_all(path).expect("removed");
        } else {
            fs::remove_file(path).expect("removed");
        }
    }

    /// Makes a file what it is on a tuned host.
    pub(super) fn restore(&self, path: &str) {
        match TUNED.iter().find(|(known, _)| *known == path) {
            Some((_, text)) => self.put(path, text),
            None => self.remove(path),
        }
    }

    /// What a file holds.
    pub(super) fn get(&self, path: &str) -> String {
        let text = fs::read_to_string(self.folder.path().join(path)).expect("there");
        text.trim().to_owned()
    }

    /// What is found about one item.
    pub(super) fn look(&self, item: &str) -> Finding {
        let mut found = check::check(&self.host, &[item.to_owned()]);
        assert_eq!(found.len(), 1, "{item}: {found:?}");
        found.remove(0)
    }

    /// How much one item matters.
    pub(super) fn severity(&self, item: &str) -> Severity {
        self.look(item).severity
    }
}

const TUNED: &[(&str, &str)] = &[
    ("proc/sys/kernel/osrelease", "6.18.1-generic\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    (
        "proc/sys/kernel/random/boot_id",
        "11111111-2222-3333-4444-555555555555\n",
    ),
    ("proc/stat", "cpu 1 2 3\nprocs_running 1\nprocs_blocked 0\n"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units\n\
         Max open files            1024                 1048576              files\n\
         Max locked memory         unlimited            unlimited            bytes\n",
    ),
    ("proc/self/cgroup", "0::/\n"),
    (
        "proc/meminfo",
        "MemTotal:       16384000 kB\nMemFree: 1 kB\n",
    ),
    ("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n"),
    ("proc/sys/vm/swappiness", "1\n"),
    (
        "sys/kernel/mm/transparent_hugepage/enabled",
        "always [madvise] never\n",
    ),
    ("sys/devices/system/cpu/online", "0-3\n"),
    (
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        "performance\n",
    ),
    (
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
        "1\n",
    ),
    (
        "sys/devices/system/cpu/cpu2/topology/thread_siblings_list",
        "2\n",
    ),
    (
        "sys/devices/system/cpu/cpu3/topology/thread_siblings_list",
        "3\n",
    ),
    ("sys/devices/system/node/node0/cpulist", "0-3\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet\n",
    ),
    ("proc/irq/30/smp_affinity_list", "0\n"),
    ("proc/irq/30/eth0-rx-0/x", ""),
    ("proc/irq/31/smp_affinity_list", "0-3\n"),
    ("proc/irq/31/nvme0q1/x", ""),
    (
        "proc/self/mountinfo",
        "27 1 8:0 / /data rw,relatime - xfs /dev/sda rw,attr2\n",
    ),
    ("sys/block/sda/dev", "8:0\n"),
    ("sys/block/sda/queue/scheduler", "[none] mq-deadline\n"),
    ("sys/block/sda/queue/nomerges", "2\n"),
    ("sys/block/sda/queue/rotational", "0\n"),
    ("sys/block/sda/queue/write_cache", "write through\n"),
    ("sys/block/sda/queue/fua", "0\n"),
    ("sys/block/sda/queue/logical_block_size", "512\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
    ("proc/sys/net/core/rps_sock_flow_entries", "0\n"),
    ("sys/class/net/lo/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/device/vendor", "0x1af4\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("sys/class/net/eth0/queues/rx-0/rps_flow_cnt", "0\n"),
    ("sys/class/net/eth0/queues/tx-0/xps_cpus", "3\n"),
    ("sys/class/net/eth0/queues/tx-1/xps_cpus", "c\n"),
];
