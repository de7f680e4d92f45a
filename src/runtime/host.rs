//! What the host must offer, checked before the first core starts, and what it has.
//!
//! Every failed check tells the value found, the value needed, and the commands that change it.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use io_uring::{IoUring, Probe, opcode};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::process::{Resource, Rlimit};

use super::buffer::{AppendBuf, BLOCK_BYTES};

/// Oldest kernel with everything used here (SINGLE_ISSUER is 6.0, long-term support begins at 6.1).
pub const KERNEL_NEEDED: (u32, u32) = (6, 1);
/// glommio refuses to start a core below this. Nothing else here locks memory.
pub const MEMLOCK_FLOOR_BYTES: u64 = 512 * 1024;
/// What glommio pins per core: three rings with 64 KiB each.
pub const MEMLOCK_PER_CORE_BYTES: u64 = 3 * 64 * 1024;
/// Descriptors a core needs for itself, beside connections and segments.
pub const DESCRIPTORS_NEEDED: u64 = 4096;
/// Clock sources that are read without a system call; others cost one per look at the clock.
pub const FAST_CLOCK_SOURCES: [&str; 4] = [
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
];

/// One thing the host does not offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shortcoming {
    /// What was looked at.
    pub what: &'static str,
    /// The value found.
    pub found: String,
    /// The value needed.
    pub needed: String,
    /// Commands that change it, one per way of running.
    pub remedies: Vec<String>,
    /// Whether the broker cannot run at all like this.
    pub fatal: bool,
}

impl fmt::Display for Shortcoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: found {}, needed {}",
            self.what, self.found, self.needed
        )?;
        for remedy in &self.remedies {
            write!(f, "\n    {remedy}")?;
        }
        Ok(())
    }
}

fn shortcoming(
    what: &'static str,
    found: impl Into<String>,
    needed: impl Into<String>,
    remedies: &[&str],
) -> Shortcoming {
    let remedies = remedies.iter().map(|remedy| (*remedy).to_owned()).collect();
    Shortcoming {
        what,
        found: found.into(),
        needed: needed.into(),
        remedies,
        fatal: true,
    }
}

/// Checks everything that does not depend on a data directory, after raising the limit of
/// descriptors as far as it may be raised.
#[must_use]
pub fn check_host(cores: usize) -> Vec<Shortcoming> {
    [
        check_kernel(),
        check_ring(),
        check_memlock(cores),
        raise_descriptors(),
        check_clock_source(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn check_kernel() -> Option<Shortcoming> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim().to_owned();
    let version = parse_kernel(&release);
    if version.is_some_and(|version| version >= KERNEL_NEEDED) {
        return None;
    }
    let needed = format!("{}.{} or newer", KERNEL_NEEDED.0, KERNEL_NEEDED.1);
    Some(shortcoming(
        "kernel",
        release,
        needed,
        &["shell: uname -r; install a newer kernel"],
    ))
}

/// The first two numbers of a kernel's release.
#[must_use]
pub fn parse_kernel(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Opens a ring as the cores do, and looks for the operations they use.
#[must_use]
pub fn check_ring() -> Option<Shortcoming> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_coop_taskrun()
        .setup_taskrun_flag();
    let found = match builder.build(8) {
        Ok(ring) => {
            let missing = missing_operations(&ring);
            if missing.is_empty() {
                return None;
            }
            format!("no support for {}", missing.join(", "))
        }
        Err(error) => {
            let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
            match disabled.as_deref().map(str::trim) {
                Ok(value) if value != "0" => format!("{error}, kernel.io_uring_disabled={value}"),
                _ => format!("{error}, probably a seccomp profile"),
            }
        }
    };
    Some(shortcoming(
        "io_uring",
        found,
        "io_uring_setup allowed",
        &[
            "shell: sysctl -w kernel.io_uring_disabled=0",
            "systemd: no SystemCallFilter= that leaves out io_uring_setup, io_uring_enter and io_uring_register",
            "container: --security-opt seccomp=<profile that allows io_uring_*>",
        ],
    ))
}

fn missing_operations(ring: &IoUring) -> Vec<&'static str> {
    let mut probe = Probe::new();
    if ring.submitter().register_probe(&mut probe).is_err() {
        return vec!["probing"];
    }
    [
        ("READ", opcode::Read::CODE),
        ("WRITE", opcode::Write::CODE),
        ("FSYNC", opcode::Fsync::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ]
    .into_iter()
    .filter(|(_, code)| !probe.is_supported(*code))
    .map(|(name, _)| name)
    .collect()
}

fn check_memlock(cores: usize) -> Option<Shortcoming> {
    if !cfg!(feature = "glommio") {
        return None;
    }
    // The limit of the root user's capability is not the resource limit.
    let limit = rustix::process::getrlimit(Resource::Memlock);
    let found = limit.current.unwrap_or(u64::MAX);
    let needed = MEMLOCK_FLOOR_BYTES.max(MEMLOCK_PER_CORE_BYTES.saturating_mul(cores as u64));
    if found >= needed {
        return None;
    }
    let mut shortcoming = shortcoming(
        "locked memory (RLIMIT_MEMLOCK)",
        format!("{found} bytes"),
        format!("{needed} bytes for {cores} cores"),
        &[
            "shell: ulimit -l unlimited",
            "systemd: LimitMEMLOCK=infinity",
            "container: --ulimit memlock=-1:-1",
        ],
    );
    // Between the floor and the need glommio copies a few bytes more.
    shortcoming.fatal = found < MEMLOCK_FLOOR_BYTES;
    Some(shortcoming)
}

/// Raises the soft limit of open descriptors to the hard one.
fn raise_descriptors() -> Option<Shortcoming> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if limit.current != limit.maximum
        && let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised)
    {
        let mut shortcoming = shortcoming(
            "open files (RLIMIT_NOFILE)",
            format!(
                "soft limit {:?} that cannot be raised: {error}",
                limit.current
            ),
            format!("the hard limit {:?}", limit.maximum),
            &["shell: ulimit -n hard"],
        );
        shortcoming.fatal = false;
        return Some(shortcoming);
    }
    let found = limit.maximum.unwrap_or(u64::MAX);
    if found >= DESCRIPTORS_NEEDED {
        return None;
    }
    Some(shortcoming(
        "open files (RLIMIT_NOFILE)",
        format!("hard limit {found}"),
        format!("{DESCRIPTORS_NEEDED} or more; one per connection and per open segment"),
        &[
            "shell: ulimit -n 1048576",
            "systemd: LimitNOFILE=1048576",
            "container: --ulimit nofile=1048576:1048576",
        ],
    ))
}

/// How many descriptors this process may have open.
#[must_use]
pub fn descriptor_limit() -> u64 {
    rustix::process::getrlimit(Resource::Nofile)
        .current
        .unwrap_or(u64::MAX)
}

fn check_clock_source() -> Option<Shortcoming> {
    const CURRENT: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    let found = fs::read_to_string(CURRENT).ok()?;
    let found = found.trim();
    if FAST_CLOCK_SOURCES.contains(&found) {
        return None;
    }
    let remedy = format!("shell: echo tsc > {CURRENT}");
    let mut slow = shortcoming(
        "clock source",
        found,
        "tsc or kvm-clock",
        &[remedy.as_str()],
    );
    slow.fatal = false;
    Some(slow)
}

/// Checks that a data directory takes direct and durable writes in our block size, by making one.
///
/// # Errors
/// When the directory cannot be written at all.
pub fn check_data_dir(path: &Path) -> io::Result<Vec<Shortcoming>> {
    let probe = path.join(".probe");
    match fs::remove_file(&probe) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT);
    let problem = match options.open(&probe) {
        Ok(file) => try_durable_write(&file),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            Some(file_system(path, "no direct I/O (O_DIRECT)".to_owned()))
        }
        Err(error) => return Err(error),
    };
    match fs::remove_file(&probe) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(problem.into_iter().collect()),
    }
}

fn try_durable_write(file: &fs::File) -> Option<Shortcoming> {
    let mut block = AppendBuf::allocate(BLOCK_BYTES);
    block.append(&[0; BLOCK_BYTES]);
    let block = block.whole();
    let vectors = [io::IoSlice::new(&block)];
    let flags = rustix::io::ReadWriteFlags::DSYNC;
    match rustix::io::pwritev2(file.as_fd(), &vectors, 0, flags) {
        Ok(BLOCK_BYTES) => None,
        Ok(count) => Some(file_system(
            Path::new("."),
            format!("a write of {count} bytes"),
        )),
        Err(error) => Some(file_system(
            Path::new("."),
            format!("a direct DSYNC write fails: {error}"),
        )),
    }
}

fn file_system(path: &Path, found: String) -> Shortcoming {
    let remedy = format!(
        "shell: df -T {}; use a directory on ext4 or xfs",
        path.display()
    );
    let needed = format!("direct writes of {BLOCK_BYTES} bytes with RWF_DSYNC");
    shortcoming(
        "file system of the data directory",
        found,
        needed,
        &[remedy.as_str()],
    )
}

/// The CPUs this process may run on, in order.
#[must_use]
pub fn usable_cpus() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..rustix::thread::CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect(),
        // More CPUs than the set holds: the standard library asks in another way.
        Err(_) => (0..std::thread::available_parallelism().map_or(1, usize::from)).collect(),
    }
}

/// What a directory lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DirectoryFacts {
    /// Major and minor number of its device.
    pub device: (u32, u32),
    /// What direct I/O must be aligned to, in memory and in the file; zeroes where there is no
    /// direct I/O, none when the kernel does not say.
    pub direct_alignment_bytes: Option<(u32, u32)>,
}

/// Asks the kernel about a directory; alignment is that of a file in it, which is made for this and
/// has no name for longer than that takes.
///
/// # Errors
/// As stat(2).
pub fn directory_facts(path: &Path) -> io::Result<DirectoryFacts> {
    let found = rustix::fs::stat(path)?;
    Ok(DirectoryFacts {
        device: (
            rustix::fs::major(found.st_dev),
            rustix::fs::minor(found.st_dev),
        ),
        direct_alignment_bytes: direct_alignment(path),
    })
}

/// A directory itself has no alignment. None as well where no file can be made.
fn direct_alignment(directory: &Path) -> Option<(u32, u32)> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = rustix::fs::open(directory, flags, Mode::RUSR | Mode::WUSR).ok()?;
    let wanted = StatxFlags::DIOALIGN;
    let found = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, wanted).ok()?;
    (found.stx_mask & wanted.bits() != 0)
        .then_some((found.stx_dio_mem_align, found.stx_dio_offset_align))
}

/// The termination signals, blocked in every thread; see [`block_termination_signals`].
pub struct TerminationSignals {
    set: libc::sigset_t,
}

/// Blocks SIGTERM and SIGINT. To be called before any other thread starts, so that all inherit it.
#[must_use]
#[allow(unsafe_code)]
pub fn block_termination_signals() -> TerminationSignals {
    // SAFETY: the set is initialised by `sigemptyset` before use, and outlives the calls.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigaddset(&raw mut set, libc::SIGINT);
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        assert_eq!(failed, 0, "pthread_sigmask");
        TerminationSignals { set }
    }
}

impl TerminationSignals {
    /// Calls `act` with the signal's name whenever one arrives, on a thread of its own.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn wait_for_termination(
        self,
        mut act: impl FnMut(&'static str) + Send + 'static,
    ) -> io::Result<()> {
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                loop {
                    act(self.wait());
                }
            })
            .map(drop)
    }

    #[allow(unsafe_code)]
    fn wait(&self) -> &'static str {
        let mut signal = 0;
        // SAFETY: both pointers are valid for the call; the set was initialised above.
        let failed = unsafe { libc::sigwait(&raw const self.set, &raw mut signal) };
        assert_eq!(failed, 0, "sigwait");
        if signal == libc::SIGTERM {
            "SIGTERM"
        } else {
            "SIGINT"
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_good_enough_to_run_the_tests() {
        let fatal: Vec<_> = check_host(2)
            .into_iter()
            .filter(|shortcoming| shortcoming.fatal)
            .collect();
        assert!(fatal.is_empty(), "{fatal:?}");
        assert!(descriptor_limit() >= DESCRIPTORS_NEEDED);
        let directory = tempfile::tempdir().expect("tempdir");
        check_data_dir(directory.path()).expect("writable");
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0);
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        assert!(check_data_dir(Path::new("/nonexistent/data")).is_err());
    }

    #[test]
    fn a_shortcoming_names_found_needed_and_remedies() {
        let text = shortcoming("limit", "1", "2", &["shell: raise it"]).to_string();
        assert_eq!(text, "limit: found 1, needed 2\n    shell: raise it");
    }

    #[test]
    fn reads_kernel_versions() {
        assert_eq!(parse_kernel("6.18.44-foo"), Some((6, 18)));
        assert_eq!(parse_kernel("6.1"), Some((6, 1)));
        assert_eq!(parse_kernel("banana"), None);
    }

    #[test]
    fn a_directory_has_a_device_and_a_missing_one_is_an_error() {
        let folder = tempfile::tempdir_in(".").expect("tempdir");
        let facts = directory_facts(folder.path()).expect("there");
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
        if let Some((memory, file)) = facts.direct_alignment_bytes {
            assert!(memory as usize <= BLOCK_BYTES && file as usize <= BLOCK_BYTES);
        }
        assert!(directory_facts(Path::new("/nonexistent/data")).is_err());
    }

    #[test]
    fn there_is_a_cpu_to_run_on() {
        assert!(!usable_cpus().is_empty());
    }
}
