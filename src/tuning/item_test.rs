//! Each item in its good, bad, missing and odd form.

use std::collections::BTreeSet;

use super::check::{self, item_names};
use super::fake_host::FakeHost;
use super::finding::Finding;
use super::finding::Severity::{Error, Good, Hint, NotApplicable, Warning};
use super::mounts;
use crate::runtime::disk_probe::Samples;

const LIMITS: &str = "proc/self/limits";
const MOUNTS: &str = "proc/self/mountinfo";
const MEMORY: &str = "proc/meminfo";
const HUGE_PAGES: &str = "sys/kernel/mm/transparent_hugepage/enabled";
const QUEUE: &str = "sys/block/sda/queue";

/// Short names for the directories in the tables below.
const PLACES: &[(&str, &str)] = &[
    ("CPU/", "sys/devices/system/cpu/"),
    ("NODE/", "sys/devices/system/node/"),
    ("CLOCK/", "sys/devices/system/clocksource/clocksource0/"),
    ("HUGE/", "sys/kernel/mm/transparent_hugepage/"),
    ("GROUP/", "sys/fs/cgroup/"),
    ("KERNEL/", "proc/sys/kernel/"),
    ("SELF/", "proc/self/"),
    ("QUEUE/", "sys/block/sda/queue/"),
    ("NET/", "sys/class/net/eth0/queues/"),
    ("SYSNET/", "proc/sys/net/"),
];

/// Checks a table. A line holds: item | files, each `path = content`, with ; between them | severity
/// | part of what is said to be found | number of changes.
fn expect(table: &str) {
    for line in table.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split('|').map(str::trim).collect();
        let [item, files, severity, found, changes] = fields[..] else {
            panic!("not five fields: {line}");
        };
        let fake = FakeHost::tuned();
        for file in files.split(';').filter(|file| !file.trim().is_empty()) {
            let (path, text) = file.trim().split_once(" = ").expect("a path and a content");
            let place = PLACES.iter().find(|(short, _)| path.starts_with(short));
            let path = place.map_or(path.to_owned(), |(short, long)| {
                path.replacen(short, long, 1)
            });
            fake.put(&path, &text.replace("\\n", "\n"));
        }
        let finding = fake.look(item);
        assert_eq!(finding.severity.name(), severity, "{line}: {finding:?}");
        assert!(finding.found.contains(found), "{line}: {finding:?}");
        assert_eq!(
            finding.changes.len().to_string(),
            changes,
            "{line}: {finding:?}"
        );
        let needs_words = finding.severity > Good && changes == "0";
        assert_eq!(needs_words, finding.remedy.is_some(), "{line}: {finding:?}");
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
    expect(
        "
        cpu-governor | CPU/cpu1/cpufreq/scaling_governor = powersave | warning | powersave on 1 CPU | 1
        cpu-governor | CPU/cpu0/cpufreq/scaling_governor = ondemand; CPU/cpu0/cpufreq/scaling_available_governors = ondemand performance | warning | ondemand | 1
        cpu-governor | CPU/cpu0/cpufreq/scaling_governor = schedutil; CPU/cpu0/cpufreq/scaling_available_governors = schedutil | warning | schedutil | 0
        clock-source | CLOCK/current_clocksource = hpet | warning | hpet | 1
        clock-source | CLOCK/current_clocksource = acpi_pm; CLOCK/available_clocksource = acpi_pm | warning | acpi_pm | 0
        clock-source | CLOCK/current_clocksource = kvm-clock | ok | kvm-clock | 0
        hyperthreads | CPU/cpu1/topology/thread_siblings_list = 1,3; CPU/cpu3/topology/thread_siblings_list = 1,3 | hint | 1,3 | 0
        hyperthreads | CPU/cpu1/topology/thread_siblings_list = 0-1 | ok | 3 CPUs | 0
        numa-nodes | NODE/node0/cpulist = 0-1; NODE/node1/cpulist = 2-3 | hint | 0-1 | 0
        cpu-quota | GROUP/cpu.max = 150000 100000 | warning | 1.50 | 0
        cpu-quota | GROUP/cpu.max = 300000 100000 | ok | 3.00 | 0
        cpu-quota | GROUP/cpu.max = max 100000 | ok | none | 0
        ",
    );
}

#[test]
fn memory() {
    expect(
        "
        transparent-huge-pages | HUGE/enabled = [always] madvise never | warning | always | 1
        transparent-huge-pages | HUGE/enabled = always madvise [never] | ok | never | 0
        swap | proc/swaps = Filename Type\\n/dev/sda2 partition | warning | /dev/sda2 | 0
        swap | proc/swaps = Filename Type\\n/dev/zram0 partition | hint | /dev/zram0 | 0
        swappiness | proc/sys/vm/swappiness = 60 | hint | 60 | 1
        swappiness | proc/sys/vm/swappiness = 60; proc/swaps = Filename\\n/dev/sda2 partition | warning | 60 | 1
        swappiness | proc/sys/vm/swappiness = 10 | ok | 10 | 0
        memory | proc/meminfo = MemTotal: 524288 kB | warning | 512 MiB of this host | 0
        memory | GROUP/memory.max = 1073741823 | warning | control group | 0
        memory | GROUP/memory.max = 2147483648 | ok | 2048 MiB granted | 0
        ",
    );
}

#[test]
fn limits_and_rings() {
    expect(
        "
        open-files | SELF/limits = Max open files 1024 4095 files | error | 4095 | 0
        open-files | SELF/limits = Max open files 1024 4096 files | warning | 4096 | 0
        open-files | SELF/limits = Max open files 1024 unlimited files | ok | unlimited | 0
        locked-memory | SELF/limits = Max locked memory 65536 65536 bytes | hint | 65536 | 0
        locked-memory | SELF/limits = Max locked memory 524288 unlimited bytes | hint | 524288 | 0
        locked-memory | SELF/limits = Max locked memory 8388608 8388608 bytes | ok | 8388608 | 0
        aio-max-nr | proc/sys/fs/aio-max-nr = 65536 | not applicable | - | 0
        kernel | KERNEL/osrelease = 5.15.0-91-generic | error | 5.15 | 0
        kernel | KERNEL/osrelease = 6.1.0 | ok | 6.1.0 | 0
        io-uring-switch | KERNEL/io_uring_disabled = 2 | error | 2 | 0
        io-uring-switch | KERNEL/io_uring_disabled = 1; SELF/status = CapEff: 000001ffffffffff | ok | 1 | 0
        io-uring-switch | KERNEL/io_uring_disabled = 1; SELF/status = Groups: 8 9\\nCapEff: 0; KERNEL/io_uring_group = 9 | ok | 1 | 0
        io-uring-switch | KERNEL/io_uring_disabled = 1; SELF/status = Groups: 8 9\\nCapEff: 0; KERNEL/io_uring_group = -1 | error | 1 | 0
        io-uring-switch | KERNEL/io_uring_disabled = 1; SELF/status = Gid: 7; KERNEL/io_uring_group = 9 | error | 1 | 0
        io-uring-operations | | not applicable | - | 0
        idle-iowait | proc/stat = procs_blocked 3 | hint | 3 | 0
        ",
    );
}

#[test]
fn disks() {
    expect(
        "
        disk-scheduler | QUEUE/scheduler = none [bfq] | warning | bfq | 1
        disk-scheduler | QUEUE/scheduler = [bfq] kyber | warning | bfq | 0
        disk-scheduler | QUEUE/scheduler = none [bfq]; QUEUE/rotational = 1 | ok | bfq | 0
        disk-merging | QUEUE/nomerges = 0 | hint | 0 | 1
        disk-merging | QUEUE/nomerges = 0; QUEUE/rotational = 1 | ok | 0 | 0
        write-cache | QUEUE/write_cache = write back | hint | no FUA | 0
        write-cache | QUEUE/write_cache = write back; QUEUE/fua = 1 | ok | FUA | 0
        ",
    );
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
        fake.directory().facts.device = device;
        let directory = fake.directory().clone();
        mounts::disks_of(&fake.tree(), &directory)
    };
    assert_eq!(disks((8, 17)), ["sdb"]);
    assert_eq!(disks((253, 0)), ["sdb", "sdc"]);
    assert!(disks((253, 1)).is_empty());
    // Unknown by its own number, known by that of the mount.
    assert_eq!(disks((0, 40)), ["sda"]);
    fake.put(MOUNTS, "27 1 0:40 / /data rw - btrfs /dev/sdb1 rw\n");
    let mut directory = fake.directory().clone();
    directory.facts.device = (0, 40);
    assert_eq!(mounts::disks_of(&fake.tree(), &directory), ["sdb"]);
    fake.put(MOUNTS, "27 1 0:40 / /data rw - overlay overlay rw\n");
    assert!(mounts::disks_of(&fake.tree(), &directory).is_empty());
}

#[test]
fn directories() {
    expect(
        "
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - ext4 /dev/sda rw | ok | ext4 at /data | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - tmpfs /dev/sda rw | error | tmpfs | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - overlay /dev/sda rw | warning | overlay | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - btrfs /dev/sda rw | warning | btrfs | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - nfs4 /dev/sda rw | warning | nfs4 | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - fuse.sshfs /dev/sda rw | warning | sshfs | 0
        file-system | SELF/mountinfo = 27 1 8:0 / /data rw - jfs /dev/sda rw | hint | jfs | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data rw,nobarrier - ext4 /dev/sda rw | error | nobarrier | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data rw,discard,barrier=0 - ext4 /dev/sda rw | error | barrier=0 | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data ro - ext4 /dev/sda rw | error | ro | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data rw,data=journal - ext4 /dev/sda rw | warning | data=journal | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data rw,discard - ext4 /dev/sda rw | hint | discard | 0
        mount-options | SELF/mountinfo = 27 1 8:0 / /data rw,noatime - ext4 /dev/sda rw | ok | noatime | 0
        ",
    );
}

#[test]
fn alignment_is_told_by_the_file_system_or_by_the_device() {
    let look = |alignment, block: Option<&str>| {
        let mut fake = FakeHost::tuned();
        fake.directory().facts.direct_alignment_bytes = alignment;
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
        fake.directory().flushes = flushes;
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
fn each_of_several_directories_is_looked_at_by_name() {
    let mut fake = FakeHost::tuned();
    fake.put("sys/block/sdb/dev", "8:16");
    fake.put("sys/block/sdb/queue/scheduler", "none [bfq]");
    let mut second = fake.directory().clone();
    second.path = "/data/second".into();
    second.facts.device = (8, 16);
    second.facts.direct_alignment_bytes = Some((0, 0));
    fake.host.directories.push(Ok(second));
    fake.host
        .directories
        .push(Err("The third is not there.".to_owned()));
    let look = |item: &str| check::check(&fake.host, &[item.to_owned()]);
    let severities = |item: &str| -> Vec<(Option<String>, &str)> {
        let found = look(item).into_iter();
        let pairs = found.map(|finding| (finding.device, finding.severity.name()));
        pairs.collect()
    };
    let name = |name: &str| Some(name.to_owned());
    assert_eq!(
        severities("direct-io"),
        [
            (name("/data"), "ok"),
            (name("/data/second"), "error"),
            (None, "not applicable"),
        ]
    );
    assert_eq!(
        severities("disk-scheduler"),
        [(name("sda"), "ok"), (name("sdb"), "warning")]
    );
}

#[test]
fn network() {
    expect(
        "
        listen-backlog | SYSNET/core/somaxconn = 128 | warning | 128 | 1
        syn-backlog | SYSNET/ipv4/tcp_max_syn_backlog = 512 | hint | 512 | 1
        receive-steering | CPU/online = 0-7 | hint | 1 receive queue for 8 CPUs | 1
        receive-steering | CPU/online = 0-7; NET/rx-0/rps_cpus = e | ok | off on 0 | 0
        receive-steering | | ok | 1 receive queue for 4 CPUs | 0
        flow-steering | CPU/online = 0-7 | hint | 2 tables | 2
        flow-steering | CPU/online = 0-7; NET/rx-0/rps_flow_cnt = 32768; SYSNET/core/rps_sock_flow_entries = 65536 | ok | on | 0
        transmit-queues | NET/tx-0/xps_cpus = 0; NET/tx-1/xps_cpus = 0 | hint | 2 queues | 2
        transmit-queues | NET/tx-0/xps_cpus = 0 | ok | off on 1 | 0
        ",
    );
    let fake = FakeHost::tuned();
    fake.put("sys/class/net/eth0/queues/tx-0/xps_cpus", "00000000");
    fake.put("sys/class/net/eth0/queues/tx-1/xps_cpus", "00000000");
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
    expect(
        "
        interrupts | proc/irq/30/smp_affinity_list = 0-1 | warning | 1 of 1 on CPUs that serve: eth0-rx-0 | 1
        interrupts | proc/irq/30/smp_affinity_list = 0 | ok | 1 interrupt | 0
        irqbalance | proc/77/comm = irqbalance | warning | running | 0
        irqbalance | proc/77/comm = irqbalance; etc/default/irqbalance = IRQBALANCE_BANNED_CPULIST=1-2 | warning | running | 0
        irqbalance | proc/77/comm = irqbalance; etc/default/irqbalance = IRQBALANCE_BANNED_CPULIST='1-3' | ok | off | 0
        ",
    );
    let affinity = "proc/irq/30/smp_affinity_list";
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
    fake.put("sys/devices/system/cpu/online", "0-7");
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
