//! The files that the tuner may write: all of them, by kind.
//!
//! A target is made of a kind and of the name or number of a device; its path follows from these
//! and from nothing else. The undo file holds targets, never paths.

use std::fmt;

use super::cpu_set;
use crate::runtime::host_tree::{HostTree, Reading, is_plain_name};

/// The longest value that is written or put back: a mask or a list of thousands of CPUs.
const VALUE_BYTES_MAX: usize = 4096;

/// One file of the host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Target {
    /// How a CPU chooses its frequency.
    Governor(u32),
    /// What the kernel reads the time from.
    ClockSource,
    /// When memory is backed by huge pages without being asked for.
    HugePages,
    /// How readily memory of processes is swapped out.
    Swappiness,
    /// The longest queue of connections that nobody has accepted.
    ListenBacklog,
    /// The longest queue of connections that are being opened.
    SynBacklog,
    /// Size of the table of flows over all network devices.
    FlowEntries,
    /// How a block device orders requests.
    Scheduler(String),
    /// Whether a block device looks for requests to merge.
    NoMerges(String),
    /// CPUs that take an interrupt.
    Interrupt(u32),
    /// CPUs that handle what a receive queue of a network device brings.
    ReceiveSteering(String, u32),
    /// Flows that a receive queue remembers.
    FlowSteering(String, u32),
    /// CPUs that send through a transmit queue.
    TransmitQueue(String, u32),
}

/// How a file shows its value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shape {
    /// As it was written.
    Plain,
    /// All possible values, the current one in brackets.
    Choice,
    /// A mask of CPUs.
    Mask,
    /// A list of CPUs.
    List,
}

impl Target {
    /// Where it lies, without a slash at the beginning.
    #[must_use]
    pub fn path(&self) -> String {
        match self {
            Target::Governor(cpu) => {
                format!("sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")
            }
            Target::ClockSource => {
                "sys/devices/system/clocksource/clocksource0/current_clocksource".to_owned()
            }
            Target::HugePages => "sys/kernel/mm/transparent_hugepage/enabled".to_owned(),
            Target::Swappiness => "proc/sys/vm/swappiness".to_owned(),
            Target::ListenBacklog => "proc/sys/net/core/somaxconn".to_owned(),
            Target::SynBacklog => "proc/sys/net/ipv4/tcp_max_syn_backlog".to_owned(),
            Target::FlowEntries => "proc/sys/net/core/rps_sock_flow_entries".to_owned(),
            Target::Scheduler(device) => format!("sys/block/{device}/queue/scheduler"),
            Target::NoMerges(device) => format!("sys/block/{device}/queue/nomerges"),
            Target::Interrupt(number) => format!("proc/irq/{number}/smp_affinity_list"),
            Target::ReceiveSteering(device, queue) => {
                format!("sys/class/net/{device}/queues/rx-{queue}/rps_cpus")
            }
            Target::FlowSteering(device, queue) => {
                format!("sys/class/net/{device}/queues/rx-{queue}/rps_flow_cnt")
            }
            Target::TransmitQueue(device, queue) => {
                format!("sys/class/net/{device}/queues/tx-{queue}/xps_cpus")
            }
        }
    }

    fn shape(&self) -> Shape {
        match self {
            Target::HugePages | Target::Scheduler(_) => Shape::Choice,
            Target::ReceiveSteering(..) | Target::TransmitQueue(..) => Shape::Mask,
            Target::Interrupt(_) => Shape::List,
            _ => Shape::Plain,
        }
    }

    /// Parses what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Target> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let rest: Vec<&str> = words.collect();
        let device = |at: usize| rest.get(at).filter(|name| is_plain_name(name));
        let number = |at: usize| -> Option<u32> {
            let text = rest.get(at)?;
            let parsed: u32 = text.parse().ok()?;
            (parsed.to_string() == **text).then_some(parsed)
        };
        match (kind, rest.len()) {
            ("governor", 1) => Some(Target::Governor(number(0)?)),
            ("clock-source", 0) => Some(Target::ClockSource),
            ("huge-pages", 0) => Some(Target::HugePages),
            ("swappiness", 0) => Some(Target::Swappiness),
            ("listen-backlog", 0) => Some(Target::ListenBacklog),
            ("syn-backlog", 0) => Some(Target::SynBacklog),
            ("flow-entries", 0) => Some(Target::FlowEntries),
            ("scheduler", 1) => Some(Target::Scheduler(device(0)?.to_string())),
            ("nomerges", 1) => Some(Target::NoMerges(device(0)?.to_string())),
            ("interrupt", 1) => Some(Target::Interrupt(number(0)?)),
            ("receive-steering", 2) => {
                Some(Target::ReceiveSteering(device(0)?.to_string(), number(1)?))
            }
            ("flow-steering", 2) => Some(Target::FlowSteering(device(0)?.to_string(), number(1)?)),
            ("transmit-queue", 2) => {
                Some(Target::TransmitQueue(device(0)?.to_string(), number(1)?))
            }
            _ => None,
        }
    }

    /// The value that a file with this text stands for, in the one form that values are compared
    /// and written in; none when it makes no sense.
    #[must_use]
    pub fn value(&self, text: &str) -> Option<String> {
        let text = text.trim();
        let value = match self.shape() {
            Shape::Plain => text.to_owned(),
            Shape::Choice => chosen(text)?.to_owned(),
            Shape::Mask => cpu_set::format_mask(&cpu_set::parse_mask(text)?),
            Shape::List => cpu_set::format_list(&cpu_set::parse_list(text)?),
        };
        is_value(&value).then_some(value)
    }

    /// The value in force.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn current(&self, tree: &HostTree) -> Result<String, String> {
        match tree.read(&self.path()) {
            Reading::Text(text) => self
                .value(&text)
                .ok_or_else(|| format!("/{}: holds no value that makes sense", self.path())),
            Reading::Missing => Err(format!("/{}: there is no such file", self.path())),
            Reading::Odd(why) => Err(format!("/{}: {why}", self.path())),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Governor(cpu) => write!(f, "governor {cpu}"),
            Target::ClockSource => f.write_str("clock-source"),
            Target::HugePages => f.write_str("huge-pages"),
            Target::Swappiness => f.write_str("swappiness"),
            Target::ListenBacklog => f.write_str("listen-backlog"),
            Target::SynBacklog => f.write_str("syn-backlog"),
            Target::FlowEntries => f.write_str("flow-entries"),
            Target::Scheduler(device) => write!(f, "scheduler {device}"),
            Target::NoMerges(device) => write!(f, "nomerges {device}"),
            Target::Interrupt(number) => write!(f, "interrupt {number}"),
            Target::ReceiveSteering(device, queue) => {
                write!(f, "receive-steering {device} {queue}")
            }
            Target::FlowSteering(device, queue) => write!(f, "flow-steering {device} {queue}"),
            Target::TransmitQueue(device, queue) => write!(f, "transmit-queue {device} {queue}"),
        }
    }
}

/// The bracketed word, or the only one.
#[must_use]
pub fn chosen(text: &str) -> Option<&str> {
    let mut words = text.split_whitespace();
    let bracketed = text.split_whitespace().find_map(|word| {
        let word = word.strip_prefix('[')?;
        word.strip_suffix(']')
    });
    match (bracketed, words.next(), words.next()) {
        (Some(word), ..) => Some(word),
        (None, Some(only), None) => Some(only),
        _ => None,
    }
}

/// Whether a text can be a value of any of these files: one word, nothing that a shell would read.
#[must_use]
pub fn is_value(text: &str) -> bool {
    let fits = |letter: u8| letter.is_ascii_alphanumeric() || b"_-.,+".contains(&letter);
    !text.is_empty() && text.len() <= VALUE_BYTES_MAX && text.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Target> {
        vec![
            Target::Governor(3),
            Target::ClockSource,
            Target::HugePages,
            Target::Swappiness,
            Target::ListenBacklog,
            Target::SynBacklog,
            Target::FlowEntries,
            Target::Scheduler("vda".to_owned()),
            Target::NoMerges("nvme0n1".to_owned()),
            Target::Interrupt(36),
            Target::ReceiveSteering("eth0".to_owned(), 1),
            Target::FlowSteering("eth0".to_owned(), 1),
            Target::TransmitQueue("eth0.5".to_owned(), 0),
        ]
    }

    #[test]
    fn targets_survive_being_written_down() {
        for target in all() {
            assert_eq!(Target::parse(&target.to_string()), Some(target));
        }
    }

    #[test]
    fn no_text_leads_out_of_the_list() {
        for text in [
            "",
            "scheduler",
            "scheduler ..",
            "scheduler ../../etc/passwd",
            "scheduler a b",
            "governor -1",
            "governor 01",
            "governor 4294967296",
            "/etc/passwd",
            "receive-steering eth0",
            "receive-steering ../x 0",
            "transmit-queue eth0 0/..",
            "swappiness now",
            "Swappiness",
        ] {
            assert_eq!(Target::parse(text), None, "{text}");
        }
        for target in all() {
            let path = target.path();
            assert!(
                path.starts_with("sys/") || path.starts_with("proc/"),
                "{path}"
            );
            assert!(!path.contains(".."), "{path}");
        }
    }

    #[test]
    fn values_are_compared_in_one_form() {
        let scheduler = Target::Scheduler("vda".to_owned());
        assert_eq!(
            scheduler.value("none [mq-deadline] bfq").as_deref(),
            Some("mq-deadline")
        );
        assert_eq!(scheduler.value("none").as_deref(), Some("none"));
        assert_eq!(scheduler.value("none bfq"), None);
        let steering = Target::ReceiveSteering("eth0".to_owned(), 0);
        assert_eq!(steering.value("00000000,00000003").as_deref(), Some("3"));
        assert_eq!(steering.value("x"), None);
        let interrupt = Target::Interrupt(1);
        assert_eq!(interrupt.value("0,1,2").as_deref(), Some("0-2"));
        for bad in ["", "a b", "$(reboot)", "a;b", "'", "a\nb"] {
            assert_eq!(Target::Swappiness.value(bad), None, "{bad}");
        }
        assert_eq!(Target::Swappiness.value(&"1".repeat(5000)), None);
    }
}
