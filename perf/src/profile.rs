//! Where the broker's CPU time goes: samples of `perf script`, by thread, by layer and by symbol.
//!
//! A sample belongs to the layer of its innermost frame that has one: a lock that the kernel takes
//! below `tcp_sendmsg` is network. Frames of the kernel are complete; the broker is built without frame
//! pointers, so of its own side often only the innermost is known.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The symbols in the last table.
const SYMBOLS_MAX: usize = 25;

/// Frames of the kernel by the beginning of their symbol. The first that fits counts.
const KERNEL_LAYERS: [(&str, &[&str]); 4] = [
    (
        NETWORK,
        &[
            "tcp_",
            "__tcp_",
            "ip_",
            "__ip_",
            "ip6_",
            "ipv4_",
            "inet_",
            "inet6_",
            "sock_",
            "__sock_",
            "skb_",
            "__skb_",
            "sk_",
            "__sk_",
            "lock_sock",
            "release_sock",
            "dev_",
            "__dev_",
            "net_",
            "netif_",
            "__netif_",
            "napi_",
            "__napi_",
            "loopback_",
            "nf_",
            "kfree_skb",
            "consume_skb",
            "__alloc_skb",
            "alloc_skb",
            "simple_copy_to_iter",
            "process_backlog",
            "__sys_recv",
            "__sys_send",
            "____sys_",
            "___sys_",
            "__x64_sys_recv",
            "__x64_sys_send",
            "__x64_sys_accept",
            "validate_xmit",
            "ep_poll_callback",
            "io_recv",
            "io_send",
            "io_accept",
        ],
    ),
    (
        STORAGE,
        &[
            "blk_",
            "__blk_",
            "bio_",
            "__bio_",
            "submit_bio",
            "virtio_queue",
            "virtblk",
            "virtqueue",
            "nvme_",
            "scsi_",
            "sd_",
            "ata_",
            "dm_",
            "mq_",
            "dd_",
            "bfq_",
            "ext4_",
            "__ext4_",
            "jbd2_",
            "xfs_",
            "btrfs_",
            "f2fs_",
            "iomap_",
            "vfs_",
            "generic_file",
            "__generic_file",
            "filemap_",
            "__filemap_",
            "folio_",
            "fallocate",
            "file_",
            "dio_",
            "do_dentry",
            "path_",
            "io_write",
            "io_read",
            "io_fsync",
            "io_fallocate",
        ],
    ),
    (
        URING,
        &[
            "io_",
            "__io_",
            "__do_sys_io_uring",
            "__x64_sys_io_uring",
            "ctx_flush",
        ],
    ),
    (
        SCHEDULER,
        &[
            "schedule",
            "__schedule",
            "try_to_wake_up",
            "pick_next",
            "finish_task_switch",
            "futex_",
            "__futex",
            "do_futex",
            "hrtimer",
            "eventfd_",
            "ep_",
            "do_epoll",
            "pv_native",
            "default_idle",
        ],
    ),
];

/// Frames of libraries and of the broker by a part of their symbol, without generics.
const USER_LAYERS: [(&str, &[&str]); 9] = [
    (CHECKSUM, &["crc32c"]),
    (
        COPYING,
        &[
            "memcpy",
            "memmove",
            "memset",
            "__memcmp",
            "memcmp",
            "copy_nonoverlapping",
            "__rep_movs",
        ],
    ),
    (
        ALLOCATOR,
        &[
            "malloc",
            "calloc",
            "realloc",
            "__libc_free",
            "cfree",
            "_int_free",
            "free_list",
            "unlink_chunk",
            "sysmalloc",
            "systrim",
            "__rust_alloc",
            "__rdl_",
            "__rustc",
            "alloc::alloc::",
        ],
    ),
    (
        WIRE,
        &[
            "percolog::wire::",
            "lz4_flex",
            "zstd",
            "ZSTD_",
            "HUF_",
            "FSE_",
            "snap::",
            "flate2",
            "miniz",
        ],
    ),
    (LOG, &["percolog::log::", "percolog::partition::"]),
    (NET, &["percolog::net::"]),
    (
        API,
        &[
            "percolog::api::",
            "percolog::shard::",
            "percolog::cluster::",
            "percolog::security::",
            "percolog::coordinator::",
        ],
    ),
    (
        RUNTIME,
        &[
            "percolog::runtime::",
            "percolog::tuning::",
            "io_uring::",
            "async_task::",
            "glommio::",
            "futures_",
            "__libc_recv",
            "__libc_send",
            "__sendmsg",
            "syscall",
            "epoll_wait",
            "pthread_",
        ],
    ),
    (
        "observe, admin",
        &[
            "percolog::observe::",
            "percolog::admin::",
            "tracing",
            "axum",
            "tokio",
            "hyper",
        ],
    ),
];

const NETWORK: &str = "kernel: network";
const STORAGE: &str = "kernel: block, file system";
const URING: &str = "kernel: io_uring";
const SCHEDULER: &str = "kernel: scheduler, timers, waiting";
const MEMORY: &str = "kernel: page faults, memory";
const KERNEL: &str = "kernel: other";
const CHECKSUM: &str = "crc";
const COPYING: &str = "memcpy";
const ALLOCATOR: &str = "allocator";
const WIRE: &str = "wire, codecs";
const LOG: &str = "log, partition";
const NET: &str = "net";
const API: &str = "api, shard";
const RUNTIME: &str = "runtime";
const OTHER: &str = "other";

/// Frames below a page fault, wherever it came from.
const FAULTS: [&str; 4] = [
    "asm_exc_page_fault",
    "exc_page_fault",
    "handle_mm_fault",
    "do_user_addr_fault",
];

/// One line of a stack.
#[derive(Debug, PartialEq)]
struct Frame {
    symbol: String,
    is_kernel: bool,
}

impl Frame {
    /// `ADDRESS SYMBOL (OBJECT)`.
    fn parse(line: &str) -> Option<Frame> {
        let (_, rest) = line.trim().split_once(' ')?;
        let (symbol, object) = rest.rsplit_once(" (")?;
        let object = object.trim_end_matches(')');
        let is_kernel = object.starts_with('[') && object != "[unknown]" && object != "[vdso]";
        Some(Frame {
            symbol: symbol.trim().to_owned(),
            is_kernel,
        })
    }

    fn layer(&self) -> Option<&'static str> {
        if self.is_kernel {
            let is_below = |names: &[&str]| names.iter().any(|name| self.symbol.starts_with(name));
            let found = KERNEL_LAYERS.iter().find(|(_, names)| is_below(names));
            return found.map(|(layer, _)| *layer);
        }
        let symbol = plain(&self.symbol);
        let has = |names: &[&str]| names.iter().any(|name| symbol.contains(name));
        let found = USER_LAYERS.iter().find(|(_, names)| has(names));
        found.map(|(layer, _)| *layer)
    }
}

/// A symbol without what stands in angle brackets behind its name, so that a function of the standard
/// library does not count for the type it is made for; `<T as Trait>::f` counts for `T`.
fn plain(symbol: &str) -> &str {
    let start = usize::from(symbol.starts_with('<'));
    let inner = &symbol[start..];
    let end = inner.find('<').unwrap_or(inner.len());
    &inner[..end]
}

/// Where a stack belongs, innermost frame first.
fn layer_of(stack: &[Frame]) -> &'static str {
    let is_fault = |frame: &Frame| frame.is_kernel && FAULTS.contains(&frame.symbol.as_str());
    if stack.iter().any(is_fault) {
        return MEMORY;
    }
    let is_in_kernel = stack.first().is_some_and(|frame| frame.is_kernel);
    let mut frames = stack.iter().filter(|frame| frame.is_kernel == is_in_kernel);
    let known = frames.find_map(Frame::layer);
    known.unwrap_or(if is_in_kernel { KERNEL } else { OTHER })
}

/// A thread without the number of a worker that the kernel started for its ring.
fn thread_of(line: &str) -> String {
    let line = line.trim();
    let name = line
        .rsplit_once(char::is_whitespace)
        .map_or(line, |(name, _)| name.trim());
    match name.strip_prefix("iou-wrk-") {
        Some(_) => "iou-wrk".to_owned(),
        None => name.to_owned(),
    }
}

/// Samples by what they are counted by.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    samples: u64,
    threads: BTreeMap<String, u64>,
    layers: BTreeMap<&'static str, u64>,
    symbols: BTreeMap<(String, &'static str), u64>,
}

impl Profile {
    /// From what `perf script -F comm,tid,ip,sym,dso` prints: per sample a line with thread and number,
    /// then a line per frame, then an empty one.
    pub(crate) fn parse(text: &str) -> Profile {
        let mut profile = Profile::default();
        for block in text.split("\n\n") {
            let mut lines = block.lines().skip_while(|line| line.trim().is_empty());
            let Some(thread) = lines.next() else {
                continue;
            };
            let stack: Vec<Frame> = lines.filter_map(Frame::parse).collect();
            profile.add(thread_of(thread), &stack);
        }
        profile
    }

    fn add(&mut self, thread: String, stack: &[Frame]) {
        let layer = layer_of(stack);
        let symbol = stack.first().map_or("[unknown]", |frame| &frame.symbol);
        self.samples += 1;
        *self.threads.entry(thread).or_default() += 1;
        *self.layers.entry(layer).or_default() += 1;
        *self.symbols.entry((symbol.to_owned(), layer)).or_default() += 1;
    }

    /// Whether there was anything to look at.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples == 0
    }

    /// The tables, for a profile of so many samples a second.
    pub(crate) fn to_text(&self, frequency: f64) -> String {
        let mut text = format!(
            "{} samples, {:.2} CPU seconds\n",
            self.samples,
            self.samples as f64 / frequency
        );
        self.section(&mut text, "by thread", self.threads.iter(), frequency);
        self.section(&mut text, "by layer", self.layers.iter(), frequency);
        let mut symbols: Vec<_> = self.symbols.iter().collect();
        symbols.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        symbols.truncate(SYMBOLS_MAX);
        let names = symbols.iter().map(|((symbol, layer), count)| {
            let symbol: String = symbol.chars().take(76).collect();
            (format!("{symbol:<76} {layer}"), *count)
        });
        let names: Vec<(String, &u64)> = names.collect();
        let title = format!("top {SYMBOLS_MAX} symbols, and the layer they were counted for");
        let names = names.iter().map(|(name, count)| (name, *count));
        self.section(&mut text, &title, names, frequency);
        text
    }

    fn section<'a>(
        &self,
        text: &mut String,
        title: &str,
        counts: impl Iterator<Item = (impl std::fmt::Display, &'a u64)>,
        frequency: f64,
    ) {
        let mut counts: Vec<_> = counts.collect();
        counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let _ = writeln!(text, "  {title}");
        for (name, count) in counts {
            let (count, samples) = (*count as f64, self.samples as f64);
            let percent = 100.0 * count / samples;
            let seconds = count / frequency;
            let _ = writeln!(text, "  {percent:>6.1}% {seconds:>7.3} s  {name}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(frames: &[(&str, &str)]) -> Vec<Frame> {
        let frames = frames.iter().map(|(symbol, object)| {
            Frame::parse(&format!("\t  ffff {symbol} ({object})")).expect("a frame")
        });
        frames.collect()
    }

    const KALLSYMS: &str = "[kernel.kallsyms]";
    const BROKER: &str = "/anywhere/percolog";
    const LIBC: &str = "/usr/lib/libc.so.6";

    #[test]
    fn symbols_belong_to_their_layer() {
        for (symbol, object, layer) in [
            ("tcp_sendmsg_locked", KALLSYMS, NETWORK),
            ("__blk_mq_sched_dispatch_requests", KALLSYMS, STORAGE),
            ("ext4_file_write_iter", KALLSYMS, STORAGE),
            ("io_submit_sqes", KALLSYMS, URING),
            ("io_write", KALLSYMS, STORAGE),
            ("__schedule", KALLSYMS, SCHEDULER),
            ("do_syscall_64", KALLSYMS, KERNEL),
            ("nf_hook_slow", "[nf_tables]", NETWORK),
            ("crc32c::hw_x86_64::crc_u64_parallel3", BROKER, CHECKSUM),
            ("__memcpy_avx_unaligned_erms", LIBC, COPYING),
            ("_int_malloc", LIBC, ALLOCATOR),
            ("percolog::wire::frame::decode", BROKER, WIRE),
            ("percolog::log::journal::Journal::append", BROKER, LOG),
            ("percolog::partition::leader::append", BROKER, LOG),
            (
                "<percolog::net::connection::Reader as Future>::poll",
                BROKER,
                NET,
            ),
            ("percolog::shard::router::{{closure}}", BROKER, API),
            ("percolog::runtime::executor::turn", BROKER, RUNTIME),
            (
                "alloc::vec::Vec<percolog::wire::codec::Writer>::push",
                BROKER,
                OTHER,
            ),
            ("[unknown]", "[unknown]", OTHER),
        ] {
            assert_eq!(layer_of(&stack(&[(symbol, object)])), layer, "{symbol}");
        }
    }

    #[test]
    fn the_innermost_frame_that_has_a_layer_counts() {
        let locked = stack(&[
            ("_raw_spin_unlock_irqrestore", KALLSYMS),
            ("virtio_queue_rq", KALLSYMS),
            ("io_submit_sqes", KALLSYMS),
            ("percolog::runtime::ring::enter", BROKER),
        ]);
        assert_eq!(layer_of(&locked), STORAGE);
        let call = stack(&[("do_syscall_64", KALLSYMS), ("__libc_recv", LIBC)]);
        assert_eq!(
            layer_of(&call),
            KERNEL,
            "the kernel's time is not the caller's"
        );
        let fault = stack(&[
            ("clear_page_erms", KALLSYMS),
            ("handle_mm_fault", KALLSYMS),
            ("simple_copy_to_iter", KALLSYMS),
            ("tcp_recvmsg", KALLSYMS),
        ]);
        assert_eq!(layer_of(&fault), MEMORY);
        let inlined = stack(&[
            ("core::ptr::drop_in_place", BROKER),
            ("percolog::net::connection::serve", BROKER),
        ]);
        assert_eq!(layer_of(&inlined), NET);
    }

    #[test]
    fn samples_are_counted_by_thread_layer_and_symbol() {
        let text = "core-1 14009 \n\
                    \tffffffff81360092 tcp_ack ([kernel.kallsyms])\n\
                    \t          17ea6d crc32c::crc (/a b/percolog)\n\
                    \n\
                    core-1 14009 \n\
                    \t          17ea6d crc32c::crc (/a b/percolog)\n\
                    \n\
                    iou-wrk-14006 14012 \n\
                    \n";
        let profile = Profile::parse(text);
        assert_eq!(profile.samples, 3);
        assert_eq!(profile.threads["core-1"], 2);
        assert_eq!(profile.threads["iou-wrk"], 1);
        assert_eq!(profile.layers[NETWORK], 1);
        assert_eq!(profile.layers[CHECKSUM], 1);
        assert_eq!(profile.layers[OTHER], 1);
        let text = profile.to_text(10.0);
        assert!(text.starts_with("3 samples, 0.30 CPU seconds"), "{text}");
        assert!(text.contains("  66.7%   0.200 s  core-1"), "{text}");
        assert!(Profile::parse("").is_empty());
    }
}
