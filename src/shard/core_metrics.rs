//! One core's numbers for the metrics page.

use std::rc::Rc;

use super::cluster_metrics;
use super::router::Router;
use crate::log::partition_log::PartitionLog;
use crate::net::close_reason::CloseReason;
use crate::net::net_metrics::{ANSWER_KINDS, NetMetrics};
use crate::observe::histogram::Counted;
use crate::observe::metrics::{HistogramSample, MetricKind, Sample, Samples};
use crate::runtime::executor;
use crate::runtime::ring;

/// What groups do; the two protocols name it differently.
const GROUP_STATES: [&str; 4] = ["empty", "preparing", "completing", "stable"];

/// What the core counts now.
#[must_use]
pub fn samples(router: &Router, net: &NetMetrics) -> Samples {
    let mut samples = Vec::new();
    net_samples(net, &mut samples);
    log_samples(router, &mut samples);
    disk_samples(router, &mut samples);
    compaction_samples(router, &mut samples);
    coordinator_samples(router, &mut samples);
    cluster_metrics::samples(router, &mut samples);
    runtime_samples(&mut samples);
    Samples {
        numbers: samples,
        histograms: durations(router, net),
    }
}

fn durations(router: &Router, net: &NetMetrics) -> Vec<HistogramSample> {
    let mut durations = Vec::new();
    for (kind, answers) in ANSWER_KINDS.iter().zip(&net.answers) {
        durations.push(HistogramSample {
            name: "percolog_request_seconds",
            help: "From a whole request to its answer on the wire; a Fetch may wait for records.",
            label: Some(("request", kind)),
            counted: answers.counted(),
        });
    }
    let (mut wait, mut write) = (Counted::NONE, Counted::NONE);
    for directory in router.replicas().directories() {
        let times = directory.journal().times();
        wait.add(&times.wait.counted());
        write.add(&times.write.counted());
    }
    let journal = |name, help, counted| HistogramSample {
        name,
        help,
        label: None,
        counted,
    };
    durations.extend([
        journal(
            "percolog_journal_group_wait_seconds",
            "From the oldest append of a journal group until the group is on its way to the disk.",
            wait,
        ),
        journal(
            "percolog_journal_group_write_seconds",
            "From there until the group, and large appends beside it, are on stable storage.",
            write,
        ),
    ]);
    durations
}

fn counter(name: &'static str, help: &'static str, value: u64) -> Sample {
    Sample {
        name,
        help,
        kind: MetricKind::Counter,
        label: None,
        value,
    }
}

pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Sample {
    Sample {
        name,
        help,
        kind: MetricKind::Gauge,
        label: None,
        value,
    }
}

fn net_samples(net: &NetMetrics, samples: &mut Vec<Sample>) {
    samples.extend([
        counter(
            "percolog_connections_accepted_total",
            "Connections accepted.",
            net.accepted.get(),
        ),
        counter(
            "percolog_connections_handed_over_total",
            "Connections given to an emptier core.",
            net.handed_over.get(),
        ),
        gauge("percolog_connections", "Connections open.", net.open.get()),
        counter(
            "percolog_requests_total",
            "Requests started.",
            net.requests.get(),
        ),
        counter("percolog_replies_total", "Answers sent.", net.replies.get()),
        counter(
            "percolog_received_bytes_total",
            "Bytes received.",
            net.received_bytes.get(),
        ),
        counter(
            "percolog_sent_bytes_total",
            "Bytes sent.",
            net.sent_bytes.get(),
        ),
        counter(
            "percolog_request_memory_waits_total",
            "Times a body waited for request memory.",
            net.memory_waits.get(),
        ),
    ]);
    for reason in CloseReason::all() {
        samples.push(Sample {
            label: Some(("reason", reason.label())),
            ..counter(
                "percolog_connections_closed_total",
                "Connections closed, by reason.",
                net.closed(reason),
            )
        });
    }
}

fn log_samples(router: &Router, samples: &mut Vec<Sample>) {
    let replicas = router.replicas();
    let (mut groups, mut bytes, mut allocated, mut checkpoints) = (0, 0, 0, 0);
    let (mut direct_writes, mut direct_bytes, mut pool_bytes, mut weak) = (0, 0, 0, 0);
    for directory in replicas.directories() {
        let counts = directory.journal().counts();
        groups += counts.groups;
        bytes += counts.bytes;
        allocated += counts.allocated_bytes;
        direct_writes += counts.direct_writes;
        direct_bytes += counts.direct_bytes;
        pool_bytes += directory.pool_bytes();
        let logs = directory.logs();
        let is_weak = |log: &&Rc<PartitionLog>| log.settings().flush_messages > 1;
        weak += logs.iter().filter(is_weak).count() as u64;
        checkpoints += directory.checkpoints();
    }
    samples.extend([
        gauge(
            "percolog_partitions",
            "Partitions of the core.",
            replicas.len() as u64,
        ),
        counter(
            "percolog_journal_groups_total",
            "Journal groups made durable.",
            groups,
        ),
        counter(
            "percolog_journal_bytes_total",
            "Bytes of journal groups.",
            bytes,
        ),
        counter(
            "percolog_direct_writes_total",
            "Writes of large appends straight to their segments.",
            direct_writes,
        ),
        counter(
            "percolog_direct_bytes_total",
            "Bytes of large appends written straight to their segments.",
            direct_bytes,
        ),
        gauge(
            "percolog_segment_pool_bytes",
            "Files of deleted segments that wait to become new ones.",
            pool_bytes,
        ),
        gauge(
            "percolog_weakly_flushed_partitions",
            "Partitions whose flush.messages lets records be acknowledged before they are flushed.",
            weak,
        ),
        gauge(
            "percolog_journal_allocated_bytes",
            "Size of the journal's files.",
            allocated,
        ),
        counter(
            "percolog_checkpoints_total",
            "Checkpoints written.",
            checkpoints,
        ),
        counter(
            "percolog_mailbox_refusals_total",
            "Questions to other cores refused because a mailbox was full.",
            router.refused(),
        ),
    ]);
}

fn disk_samples(router: &Router, samples: &mut Vec<Sample>) {
    let replicas = router.replicas();
    let scrub = replicas.scrub_counts();
    samples.extend([
        gauge(
            "percolog_offline_directories",
            "Data directories that do not serve, as the core sees them.",
            replicas.offline_directories() as u64,
        ),
        gauge(
            "percolog_full_directories",
            "Data directories without space for appends, as the core sees them.",
            replicas.full_directories() as u64,
        ),
        counter(
            "percolog_scrub_rounds_total",
            "Full rounds of the background check over all sealed segments.",
            scrub.rounds,
        ),
        counter(
            "percolog_scrub_bytes_total",
            "Bytes that the background check read.",
            scrub.bytes,
        ),
        counter(
            "percolog_scrub_damaged_batches_total",
            "Batches that did not verify, each of which took its partition offline.",
            scrub.bad_batches,
        ),
        gauge(
            "percolog_offline_partitions",
            "Partitions of the core that do not serve because of their disk.",
            replicas.offline_logs().len() as u64,
        ),
    ]);
}

fn compaction_samples(router: &Router, samples: &mut Vec<Sample>) {
    let replicas = router.replicas();
    let counts = replicas.housekeeper().compaction_counts();
    let backlog = replicas.compaction_backlog();
    samples.extend([
        counter(
            "percolog_compaction_runs_total",
            "Runs of compaction that came to their end.",
            counts.runs,
        ),
        counter(
            "percolog_compaction_read_bytes_total",
            "Bytes that compaction read.",
            counts.read_bytes,
        ),
        counter(
            "percolog_compaction_written_bytes_total",
            "Bytes that compaction wrote.",
            counts.written_bytes,
        ),
        gauge(
            "percolog_compaction_uncleanable_partitions",
            "Partitions that are not compacted any more because a segment is damaged.",
            backlog.uncleanable,
        ),
        gauge(
            "percolog_compaction_longest_lag_ms",
            "Age of the oldest record that waits for compaction.",
            backlog.longest_lag_ms,
        ),
    ]);
}

fn coordinator_samples(router: &Router, samples: &mut Vec<Sample>) {
    let coordinators = router.coordinators();
    let (groups, transactions) = (coordinators.groups(), coordinators.transactions());
    let mut states = [0_u64; GROUP_STATES.len()];
    let (mut members, mut offsets, mut ids, mut open) = (0, 0, 0, 0);
    groups.each_shard(|shard| {
        let counts = shard.counts();
        let of_state = [
            counts.classic_empty + counts.consumer_empty,
            counts.classic_preparing_rebalance + counts.consumer_assigning,
            counts.classic_completing_rebalance + counts.consumer_reconciling,
            counts.classic_stable + counts.consumer_stable,
        ];
        for (state, count) in states.iter_mut().zip(of_state) {
            *state += count as u64;
        }
        members += counts.members as u64;
        offsets += counts.offsets as u64;
    });
    transactions.each_shard(|shard| {
        ids += shard.len() as u64;
        open += shard.open() as u64;
    });
    for (state, count) in GROUP_STATES.iter().zip(states) {
        samples.push(Sample {
            label: Some(("state", state)),
            ..gauge("percolog_groups", "Groups of this core, by state.", count)
        });
    }
    let loading = groups.partitions().len() - groups.serving();
    let loading = loading + transactions.partitions().len() - transactions.serving();
    samples.extend([
        gauge("percolog_group_members", "Members of all groups.", members),
        gauge(
            "percolog_committed_offsets",
            "Offsets that groups have committed.",
            offsets,
        ),
        gauge(
            "percolog_transactional_ids",
            "Transactional ids that are remembered.",
            ids,
        ),
        gauge(
            "percolog_open_transactions",
            "Transactions that are open.",
            open,
        ),
        gauge(
            "percolog_coordinators_loading",
            "Partitions of groups and transactions that do not serve yet.",
            loading as u64,
        ),
    ]);
}

fn runtime_samples(samples: &mut Vec<Sample>) {
    let stalls = executor::stalls();
    let ring = ring::counters();
    samples.extend([
        counter(
            "percolog_stalls_total",
            "Task polls beyond 10 ms.",
            stalls.count,
        ),
        gauge(
            "percolog_stall_longest_us",
            "The longest of them.",
            stalls.longest_us,
        ),
        counter(
            "percolog_ring_writes_total",
            "Writes through the ring.",
            ring.writes,
        ),
        counter(
            "percolog_ring_reads_total",
            "Reads through the ring.",
            ring.reads,
        ),
        counter(
            "percolog_ring_syncs_total",
            "Flushes through the ring.",
            ring.syncs,
        ),
    ]);
}
