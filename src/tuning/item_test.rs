//! Each item in its good, bad, missing and odd form.

use std::collections::BTreeSet;

use super::check::{self, item_names};
use super::fake_host::FakeHost;
use super::finding::Severity::{Error, Good, Hint, NotApplicable, Warning};
use super::finding::{Finding, Severity};
use super::host::DataDirectory;
use super::mounts;
use crate::runtime::disk_probe::Samples;

const LIMITS: &str = "proc/self/limits";
const MOUNTS: &str = "proc/self/mountinfo";
const MEMORY: &str = "proc/meminfo";
const SWAPS: &str = "proc/swaps";
const CPU: &str = "sys/devices/system/cpu";
const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const QUEUE: &str = "sys/block/sda/queue";
const NETWORK: &str = "sys/class/net/eth0/queues";

/// Item, files changed, severity, part of what is said to be found, number of changes.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Severity, &'a str, usize);

fn expect(cases: &[Case<'_>]) {
    for (item, files, severity, found, changes) in cases {
        let fake = FakeHost::tuned();
        for (path, text) in *files {
            fake.put(path, text);
        }
        let finding = fake.look(item);
        assert_eq!(finding.severity, *severity, "{item} {files:?}: {finding:?}");
        assert!(
            finding.found.contains(found),
            "{item} {files:?}: {finding:?}"
        );
        assert_eq!(
            finding.changes.len(),
            *changes,
            "{item} {files:?}: {finding:?}"
        );
        let needs_words = finding.severity > Good && changes == &0;
        assert_eq!(needs_words, finding.remedy.is_some(), "{item}: {finding:?}");
    }
}

#[test]
fn a_tuned_host_needs_no_attention() {
    let fake = FakeHost::tuned();
    let findings = check::check(&fake.host, &[]);
    let notable: Vec<&Finding> = findings
        .iter()
        .filter(|finding| finding.severity > Good && finding.item != "idle-iowait")
        .collect();
    assert!(notable.is_empty(), "{notable:?}");
    assert!(!check::needs_attention(&findings));
    let found: BTreeSet<&str> = findings.iter().map(|finding| finding.item).collect();
    assert_eq!(found, item_names().collect());
    for finding in &findings {
        assert!(finding.reason.ends_with(['.', ')']), "{finding:?}");
    }
}

#[test]
fn a_host_that_tells_nothing_is_not_judged() {
    let fake = FakeHost::new();
    for finding in check::check(&fake.host, &[]) {
        let measured = [
            "flush-latency",
            "direct-io",
            "cpu-quota",
            "irqbalance",
            "interrupts",
        ];
        if !measured.contains(&finding.item) {
            assert_eq!(finding.severity, NotApplicable, "{finding:?}");
        }
        assert!(
            finding.severity < Warning && finding.changes.is_empty(),
            "{finding:?}"
        );
    }
}

#[test]
fn processors() {
    let governor = |cpu| format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor");
    let offered = |cpu| format!("{CPU}/cpu{cpu}/cpufreq/scaling_available_governors");
    let siblings = |cpu| format!("{CPU}/cpu{cpu}/topology/thread_siblings_list");
    let current = format!("{CLOCK}/current_clocksource");
    let available = format!("{CLOCK}/available_clocksource");
    expect(&[
        (
            "cpu-governor",
            &[(&governor(1), "powersave")],
            Warning,
            "powersave on 1 CPU",
            1,
        ),
        (
            "cpu-governor",
            &[
                (&governor(0), "ondemand"),
                (&offered(0), "ondemand performance"),
            ],
            Warning,
            "ondemand",
            1,
        ),
        (
            "cpu-governor",
            &[(&governor(0), "schedutil"), (&offered(0), "schedutil")],
            Warning,
            "schedutil",
            0,
        ),
        ("clock-source", &[(&current, "hpet")], Warning, "hpet", 1),
        (
            "clock-source",
            &[(&current, "acpi_pm"), (&available, "acpi_pm")],
            Warning,
            "acpi_pm",
            0,
        ),
        (
            "clock-source",
            &[(&current, "kvm-clock")],
            Good,
            "kvm-clock",
            0,
        ),
        (
            "hyperthreads",
            &[(&siblings(1), "1,3"), (&siblings(3), "1,3")],
            Hint,
            "1,3",
            0,
        ),
        ("hyperthreads", &[(&siblings(1), "0-1")], Good, "3 CPUs", 0),
        (
            "numa-nodes",
            &[
                ("sys/devices/system/node/node0/cpulist", "0-1"),
                ("sys/devices/system/node/node1/cpulist", "2-3"),
            ],
            Hint,
            "0-1",
            0,
        ),
        (
            "cpu-quota",
            &[("sys/fs/cgroup/cpu.max", "150000 100000")],
            Warning,
            "1.50",
            0,
        ),
        (
            "cpu-quota",
            &[("sys/fs/cgroup/cpu.max", "300000 100000")],
            Good,
            "3.00",
            0,
        ),
        (
            "cpu-quota",
            &[("sys/fs/cgroup/cpu.max", "max 100000")],
            Good,
            "none",
            0,
        ),
    ]);
}

#[test]
fn memory() {
    let swap = "Filename Type Size\n/dev/sda2 partition 1\n";
    let zram = "Filename Type Size\n/dev/zram0 partition 1\n";
    let swappiness = "proc/sys/vm/swappiness";
    expect(&[
        (
            "transparent-huge-pages",
            &[(HUGE_PAGES, "[always] madvise never")],
            Warning,
            "always",
            1,
        ),
        (
            "transparent-huge-pages",
            &[(HUGE_PAGES, "always madvise [never]")],
            Good,
            "never",
            0,
        ),
        ("swap", &[(SWAPS, swap)], Warning, "/dev/sda2", 0),
        ("swap", &[(SWAPS, zram)], Hint, "/dev/zram0", 0),
        ("swappiness", &[(swappiness, "60")], Hint, "60", 1),
        (
            "swappiness",
            &[(swappiness, "60"), (SWAPS, swap)],
            Warning,
            "60",
            1,
        ),
        ("swappiness", &[(swappiness, "10")], Good, "10", 0),
        (
            "memory",
            &[(MEMORY, "MemTotal: 524288 kB")],
            Warning,
            "512 MiB of this host",
            0,
        ),
        (
            "memory",
            &[("sys/fs/cgroup/memory.max", "1073741823")],
            Warning,
            "control group",
            0,
        ),
        (
            "memory",
            &[("sys/fs/cgroup/memory.max", "2147483648")],
            Good,
            "2048 MiB granted",
            0,
        ),
    ]);
}

#[test]
fn limits_and_rings() {
    let limits = |files: &str, memory: &str| {
        format!("Max open files 1024 {files} files\nMax locked memory {memory} {memory} bytes\n")
    };
    let switch = "proc/sys/kernel/io_uring_disabled";
    let group = "proc/sys/kernel/io_uring_group";
    let status = "proc/self/status";
    let member = "Gid:\t7\t7\t7\t7\nGroups:\t8 9 \nCapEff:\t0000000000000000\n";
    let admin = "Gid:\t7\t7\t7\t7\nGroups:\t\nCapEff:\t000001ffffffffff\n";
    let release = "proc/sys/kernel/osrelease";
    expect(&[
        (
            "open-files",
            &[(LIMITS, &limits("4095", "1"))],
            Error,
            "4095",
            0,
        ),
        (
            "open-files",
            &[(LIMITS, &limits("4096", "1"))],
            Warning,
            "4096",
            0,
        ),
        (
            "open-files",
            &[(LIMITS, &limits("unlimited", "1"))],
            Good,
            "unlimited",
            0,
        ),
        (
            "locked-memory",
            &[(LIMITS, &limits("1", "65536"))],
            Error,
            "65536",
            0,
        ),
        (
            "locked-memory",
            &[(LIMITS, &limits("1", "524288"))],
            Warning,
            "524288",
            0,
        ),
        (
            "locked-memory",
            &[(LIMITS, &limits("1", "8388608"))],
            Good,
            "8388608",
            0,
        ),
        (
            "aio-max-nr",
            &[("proc/sys/fs/aio-max-nr", "65536")],
            NotApplicable,
            "-",
            0,
        ),
        (
            "kernel",
            &[(release, "5.15.0-91-generic")],
            Error,
            "5.15",
            0,
        ),
        ("kernel", &[(release, "6.1.0")], Good, "6.1.0", 0),
        ("io-uring-switch", &[(switch, "2")], Error, "2", 0),
        (
            "io-uring-switch",
            &[(switch, "1"), (status, admin)],
            Good,
            "1",
            0,
        ),
        (
            "io-uring-switch",
            &[(switch, "1"), (status, member), (group, "9")],
            Good,
            "1",
            0,
        ),
        (
            "io-uring-switch",
            &[(switch, "1"), (status, member), (group, "-1")],
            Error,
            "1",
            0,
        ),
        ("io-uring-operations", &[], NotApplicable, "-", 0),
        (
            "idle-iowait",
            &[("proc/stat", "procs_blocked 3")],
            Hint,
            "3",
            0,
        ),
    ]);
}

#[test]
fn disks() {
    let file = |name| format!("{QUEUE}/{name}");
    let (scheduler, merges) = (file("scheduler"), file("nomerges"));
    let (rotating, cache, fua) = (file("rotational"), file("write_cache"), file("fua"));
    expect(&[
        (
            "disk-scheduler",
            &[(&scheduler, "none [bfq]")],
            Warning,
            "bfq",
            1,
        ),
        (
            "disk-scheduler",
            &[(&scheduler, "[bfq] kyber")],
            Warning,
            "bfq",
            0,
        ),
        (
            "disk-scheduler",
            &[(&scheduler, "none [bfq]"), (&rotating, "1")],
            Good,
            "bfq",
            0,
        ),
        ("disk-merging", &[(&merges, "0")], Hint, "0", 1),
        (
            "disk-merging",
            &[(&merges, "0"), (&rotating, "1")],
            Good,
            "0",
            0,
        ),
        ("write-cache", &[(&cache, "write back")], Hint, "no FUA", 0),
        (
            "write-cache",
            &[(&cache, "write back"), (&fua, "1")],
            Good,
            "FUA",
            0,
        ),
    ]);
}

#[test]
fn disks_are_found_below_partitions_and_joined_devices() {
    let mut fake = FakeHost::tuned();
    fake.put("sys/block/sdb/sdb1/dev", "8:17");
    fake.put("sys/block/sdc/dev", "8:32");
    fake.put("sys/block/md0/dev", "9:0");
    fake.put("sys/block/md0/slaves/sdb1/x", "");
    fake.put("sys/block/md0/slaves/sdc/x", "");
    fake.put("sys/block/dm-0/dev", "253:0");
    fake.put("sys/block/dm-0/slaves/md0/x", "");
    // A ring of devices, which no kernel makes, ends too.
    fake.put("sys/block/dm-1/dev", "253:1");
    fake.put("sys/block/dm-1/slaves/dm-1/x", "");
    let mut disks = |device: (u32, u32)| {
        let directory: &mut DataDirectory = fake.host.directory.as_mut().expect("set");
        directory.facts.device = device;
        let directory = directory.clone();
        mounts::disks_of(&fake.tree(), &directory)
    };
    assert_eq!(disks((8, 17)), ["sdb"]);
    assert_eq!(disks((253, 0)), ["sdb", "sdc"]);
    assert!(disks((253, 1)).is_empty());
    // Unknown by its own number, known by that of the mount.
    assert_eq!(disks((0, 40)), ["sda"]);
    fake.put(MOUNTS, "27 1 0:40 / /data rw - btrfs /dev/sdb1 rw\n");
    let directory = fake.host.directory.clone().expect("set");
    let mut directory = directory;
    directory.facts.device = (0, 40);
    assert_eq!(mounts::disks_of(&fake.tree(), &directory), ["sdb"]);
    fake.put(MOUNTS, "27 1 0:40 / /data rw - overlay overlay rw\n");
    assert!(mounts::disks_of(&fake.tree(), &directory).is_empty());
}

#[test]
fn directories() {
    let mount =
        |kind: &str, options: &str| format!("27 1 8:0 / /data {options} - {kind} /dev/sda rw");
    let kind = |kind| mount(kind, "rw");
    let options = |options| mount("ext4", options);
    expect(&[
        (
            "file-system",
            &[(MOUNTS, &kind("ext4"))],
            Good,
            "ext4 at /data",
            0,
        ),
        (
            "file-system",
            &[(MOUNTS, &kind("tmpfs"))],
            Error,
            "tmpfs",
            0,
        ),
        (
            "file-system",
            &[(MOUNTS, &kind("overlay"))],
            Warning,
            "overlay",
            0,
        ),
        (
            "file-system",
            &[(MOUNTS, &kind("btrfs"))],
            Warning,
            "btrfs",
            0,
        ),
        (
            "file-system",
            &[(MOUNTS, &kind("nfs4"))],
            Warning,
            "nfs4",
            0,
        ),
        (
            "file-system",
            &[(MOUNTS, &kind("fuse.sshfs"))],
            Warning,
            "sshfs",
            0,
        ),
        ("file-system", &[(MOUNTS, &kind("jfs"))], Hint, "jfs", 0),
        (
            "mount-options",
            &[(MOUNTS, &options("rw,nobarrier"))],
            Error,
            "nobarrier",
            0,
        ),
        (
            "mount-options",
            &[(MOUNTS, &options("rw,discard,barrier=0"))],
            Error,
            "barrier=0",
            0,
        ),
        ("mount-options", &[(MOUNTS, &options("ro"))], Error, "ro", 0),
        (
            "mount-options",
            &[(MOUNTS, &options("rw,data=journal"))],
            Warning,
            "data=journal",
            0,
        ),
        (
            "mount-options",
            &[(MOUNTS, &options("rw,discard"))],
            Hint,
            "discard",
            0,
        ),
        (
            "mount-options",
            &[(MOUNTS, &options("rw,noatime"))],
            Good,
            "noatime",
            0,
        ),
    ]);
}

#[test]
fn alignment_is_told_by_the_file_system_or_by_the_device() {
    let look = |alignment, block: Option<&str>| {
        let mut fake = FakeHost::tuned();
        let directory = fake.host.directory.as_mut().expect("set");
        directory.facts.direct_alignment_bytes = alignment;
        match block {
            Some(text) => fake.put(&format!("{QUEUE}/logical_block_size"), text),
            None => fake.remove(&format!("{QUEUE}/logical_block_size")),
        }
        fake.severity("direct-io")
    };
    assert_eq!(look(Some((512, 4096)), None), Good);
    assert_eq!(look(Some((0, 0)), Some("512")), Error);
    assert_eq!(look(Some((4, 8192)), Some("512")), Error);
    assert_eq!(look(None, Some("4096")), Good);
    assert_eq!(look(None, Some("16384")), Error);
    assert_eq!(look(None, Some("four")), Hint);
    assert_eq!(look(None, None), NotApplicable);
}

#[test]
fn flushes_are_judged_by_half_of_them() {
    let look = |flushes| {
        let mut fake = FakeHost::tuned();
        fake.host.directory.as_mut().expect("set").flushes = flushes;
        fake.severity("flush-latency")
    };
    let of = |latency_us| {
        Ok(Samples {
            elapsed_us: 1,
            bytes: 1,
            latencies_us: vec![latency_us; 9],
        })
    };
    assert_eq!(look(of(170)), Good);
    assert_eq!(look(of(3_000)), Hint);
    assert_eq!(look(of(15_000)), Warning);
    assert_eq!(look(Err("No permission.".to_owned())), NotApplicable);
}

#[test]
fn network() {
    let eight = (&*format!("{CPU}/online"), "0-7");
    let steering = format!("{NETWORK}/rx-0/rps_cpus");
    let flows = format!("{NETWORK}/rx-0/rps_flow_cnt");
    let (first, second) = (
        format!("{NETWORK}/tx-0/xps_cpus"),
        format!("{NETWORK}/tx-1/xps_cpus"),
    );
    let entries = "proc/sys/net/core/rps_sock_flow_entries";
    expect(&[
        (
            "listen-backlog",
            &[("proc/sys/net/core/somaxconn", "128")],
            Warning,
            "128",
            1,
        ),
        (
            "syn-backlog",
            &[("proc/sys/net/ipv4/tcp_max_syn_backlog", "512")],
            Hint,
            "512",
            1,
        ),
        (
            "receive-steering",
            &[eight],
            Hint,
            "1 receive queue for 8 CPUs",
            1,
        ),
        (
            "receive-steering",
            &[eight, (&steering, "e")],
            Good,
            "off on 0",
            0,
        ),
        (
            "receive-steering",
            &[],
            Good,
            "1 receive queue for 4 CPUs",
            0,
        ),
        ("flow-steering", &[eight], Hint, "2 tables", 2),
        (
            "flow-steering",
            &[eight, (&flows, "32768"), (entries, "65536")],
            Good,
            "on",
            0,
        ),
        (
            "transmit-queues",
            &[(&first, "0"), (&second, "0")],
            Hint,
            "2 queues",
            2,
        ),
        ("transmit-queues", &[(&first, "0")], Good, "off on 1", 0),
    ]);
    let fake = FakeHost::tuned();
    fake.put(&first, "00000000");
    fake.put(&second, "00000000");
    let changes = fake.look("transmit-queues").changes;
    let values: Vec<&str> = changes.iter().map(|change| change.value.as_str()).collect();
    assert_eq!(values, ["5", "a"]);
    fake.remove("sys/class/net/eth0");
    for item in ["receive-steering", "flow-steering", "transmit-queues"] {
        assert_eq!(fake.severity(item), NotApplicable, "{item}");
    }
}

#[test]
fn interrupts_belong_on_cpus_that_do_not_serve() {
    let affinity = "proc/irq/30/smp_affinity_list";
    let comm = ("proc/77/comm", "irqbalance");
    let defaults = "etc/default/irqbalance";
    expect(&[
        (
            "interrupts",
            &[(affinity, "0-1")],
            Warning,
            "1 of 1 on CPUs that serve: eth0-rx-0",
            1,
        ),
        ("interrupts", &[(affinity, "0")], Good, "1 interrupt", 0),
        ("irqbalance", &[comm], Warning, "running", 0),
        (
            "irqbalance",
            &[comm, (defaults, "IRQBALANCE_BANNED_CPULIST=1-2")],
            Warning,
            "running",
            0,
        ),
        (
            "irqbalance",
            &[comm, (defaults, "IRQBALANCE_BANNED_CPULIST=\"1-3\"")],
            Good,
            "off",
            0,
        ),
    ]);
    let mut fake = FakeHost::tuned();
    fake.put(affinity, "0-3");
    let change = fake.look("interrupts").changes.remove(0);
    assert_eq!(
        (change.target.to_string(), change.value),
        ("interrupt 30".into(), "0".into())
    );
    fake.host.data_cpus.insert(0);
    assert_eq!(
        fake.severity("interrupts"),
        NotApplicable,
        "four CPUs, and all serve"
    );
    assert_eq!(fake.severity("irqbalance"), NotApplicable);
    fake.host.data_cpus = (0..8).collect();
    fake.put(&format!("{CPU}/online"), "0-7");
    assert_eq!(
        fake.severity("interrupts"),
        Hint,
        "eight CPUs, and all serve"
    );
}

/// Files, and the items that depend on each.
const FILES: &[(&str, &[&str])] = &[
    ("proc/sys/kernel/osrelease", &["kernel"]),
    ("proc/sys/kernel/io_uring_disabled", &["io-uring-switch"]),
    ("proc/stat", &["idle-iowait"]),
    (LIMITS, &["open-files", "locked-memory"]),
    (MEMORY, &["memory"]),
    ("proc/sys/vm/swappiness", &["swappiness"]),
    (HUGE_PAGES, &["transparent-huge-pages"]),
    (
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor",
        &["cpu-governor"],
    ),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        &["clock-source"],
    ),
    ("proc/irq/30/smp_affinity_list", &["interrupts"]),
    (MOUNTS, &["file-system", "mount-options"]),
    ("sys/block/sda/queue/scheduler", &["disk-scheduler"]),
    ("sys/block/sda/queue/nomerges", &["disk-merging"]),
    ("sys/block/sda/queue/write_cache", &["write-cache"]),
    ("proc/sys/net/core/somaxconn", &["listen-backlog"]),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", &["syn-backlog"]),
    (
        "sys/class/net/eth0/queues/tx-1/xps_cpus",
        &["transmit-queues"],
    ),
];

#[test]
fn what_makes_no_sense_is_told_and_nothing_is_changed_for_it() {
    let huge = vec![b'1'; (1 << 20) + 1];
    let odd: [&[u8]; 5] = [
        b"",
        b"\xff\xfe\xfd",
        &huge,
        b"18446744073709551616 [ - ] .. ; $(reboot)",
        b"-1\n-1\n",
    ];
    let fake = FakeHost::tuned();
    for (path, items) in FILES {
        for bytes in odd {
            fake.put_bytes(path, bytes);
            for item in *items {
                let finding = fake.look(item);
                let shown = &bytes[..bytes.len().min(16)];
                assert_eq!(finding.severity, Hint, "{path} {shown:?}: {finding:?}");
                assert!(
                    finding.found.starts_with("odd: "),
                    "{path} {shown:?}: {finding:?}"
                );
                assert!(finding.changes.is_empty(), "{path} {shown:?}: {finding:?}");
                assert!(finding.found.len() < 200);
            }
        }
        // One interrupt less is no less of a host.
        if *path != "proc/irq/30/smp_affinity_list" {
            fake.remove(path);
            for item in *items {
                let finding = fake.look(item);
                assert!(finding.severity <= Good, "{path} missing: {finding:?}");
                assert!(finding.changes.is_empty(), "{path} missing: {finding:?}");
            }
        }
        fake.restore(path);
    }
}

#[test]
fn files_that_only_add_to_an_item_never_break_it() {
    let huge = vec![b'['; (1 << 20) + 1];
    let fake = FakeHost::tuned();
    for path in [
        "proc/self/cgroup",
        "proc/swaps",
        "proc/77/comm",
        "proc/self/status",
        "etc/default/irqbalance",
        "sys/fs/cgroup/cpu.max",
        "sys/fs/cgroup/memory.max",
        "sys/devices/system/cpu/online",
        "sys/devices/system/cpu/cpu1/topology/thread_siblings_list",
        "sys/devices/system/node/node0/cpulist",
        "sys/block/sda/dev",
        "sys/block/sda/queue/rotational",
        "sys/block/sda/queue/fua",
        "sys/class/net/eth0/queues/rx-0/rps_flow_cnt",
    ] {
        for bytes in [
            b"\xff".as_slice(),
            b"nonsense",
            &huge,
            b"99999999999999999999",
        ] {
            fake.put_bytes(path, bytes);
            let findings = check::check(&fake.host, &[]);
            assert!(!check::needs_attention(&findings), "{path}: {findings:?}");
        }
        fake.restore(path);
    }
}
