//! Durable writes of one size and depth into a file of one state, timed: what `percolog tune` learns
//! about a disk. Written the way the broker writes (O_DIRECT, DSYNC for each write, through a ring),
//! but blocking, on the calling thread.
//!
//! The file has no name once it is open, so nothing is left behind whatever ends the process.
#![allow(unsafe_code)] // Buffers live as long as the probe, which waits for what is in flight.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::buffer::{AppendBuf, BLOCK_BYTES, Slice};

/// The largest write.
pub const WRITE_BYTES_MAX: usize = 1 << 20;
/// The most writes on their way at a time.
pub const DEPTH_MAX: usize = 8;
/// Latencies remembered of one run, at most.
const SAMPLES_MAX: usize = 1 << 20;
/// Name of the file while it has one.
const FILE_NAME: &str = "percolog.probe";

/// What the blocks of a file were before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileState {
    /// Data, as in a recycled segment.
    Written,
    /// Zeroes, as in a journal before its first round.
    Zeroed,
    /// Allocated and never written, as in a fresh segment.
    Allocated,
}

impl FileState {
    /// Its name, for tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileState::Written => "written",
            FileState::Zeroed => "zero-written",
            FileState::Allocated => "fallocated",
        }
    }
}

/// One run of writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// Each write.
    pub size_bytes: usize,
    /// Writes on their way at a time.
    pub depth: usize,
    /// When to stop.
    pub time: Duration,
    /// What to write at most.
    pub bytes_max: u64,
}

/// What a run of writes took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// All of them together.
    pub elapsed_us: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Each write, sorted.
    pub latencies_us: Vec<u64>,
}

impl Samples {
    /// Writes in a second.
    #[must_use]
    pub fn writes_per_second(&self) -> f64 {
        self.latencies_us.len() as f64 * 1e6 / self.elapsed_us.max(1) as f64
    }

    /// Bytes in a second.
    #[must_use]
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes as f64 * 1e6 / self.elapsed_us.max(1) as f64
    }

    /// The latency that `share` of the writes do not exceed; 0 without any.
    #[must_use]
    pub fn quantile_us(&self, share: f64) -> u64 {
        let last = self.latencies_us.len().saturating_sub(1);
        let at = (last as f64 * share).ceil() as usize;
        self.latencies_us.get(at.min(last)).copied().unwrap_or(0)
    }
}

/// A nameless file in a directory, and a ring to write it with.
pub struct DiskProbe {
    directory: PathBuf,
    file: fs::File,
    size_bytes: u64,
    ring: IoUring,
    data: Slice,
}

impl DiskProbe {
    /// In `directory`, with an empty file.
    ///
    /// # Errors
    /// As open(2), among them EINVAL where there is no direct I/O, and io_uring_setup(2).
    pub fn open(directory: &Path) -> io::Result<DiskProbe> {
        Ok(DiskProbe {
            directory: directory.to_path_buf(),
            file: nameless_file(directory)?,
            size_bytes: 0,
            ring: IoUring::new(DEPTH_MAX as u32)?,
            data: noise(),
        })
    }

    /// Bytes of the file system that are free.
    ///
    /// # Errors
    /// As statvfs(2).
    pub fn free_bytes(&self) -> io::Result<u64> {
        let space = rustix::fs::fstatvfs(&self.file)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Replaces the file by one of `size_bytes`, a multiple of [`WRITE_BYTES_MAX`], in `state`;
    /// durable on return.
    ///
    /// # Errors
    /// As open(2), fallocate(2) and write(2).
    pub fn prepare(&mut self, state: FileState, size_bytes: u64) -> io::Result<()> {
        assert!(size_bytes.is_multiple_of(WRITE_BYTES_MAX as u64) && size_bytes > 0);
        self.file = nameless_file(&self.directory)?;
        self.size_bytes = size_bytes;
        match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, size_bytes) {
            // Where blocks cannot be reserved, writing them makes them.
            Err(Errno::OPNOTSUPP) if state != FileState::Allocated => {}
            reserved => reserved?,
        }
        let fill = match state {
            FileState::Allocated => None,
            FileState::Zeroed => Some(zeroes()),
            FileState::Written => Some(self.data.clone()),
        };
        if let Some(bytes) = fill {
            let whole = Run {
                size_bytes: WRITE_BYTES_MAX,
                depth: 4,
                time: Duration::MAX,
                bytes_max: size_bytes,
            };
            self.drive(whole, &bytes, false, &mut |_| false)?;
        }
        self.file.sync_all()
    }

    /// Writes from the beginning of the file, and again from there at its end; each write durable.
    ///
    /// # Errors
    /// As pwritev2(2); a short write is an error too.
    pub fn run(&mut self, run: Run) -> io::Result<Samples> {
        let data = self.data.clone();
        self.drive(run, &data, true, &mut |_| false)
    }

    /// The same beside large writes to another file that are paced and not durable, as the broker
    /// stores segments; also how many bytes a second those reached.
    ///
    /// # Errors
    /// As [`DiskProbe::run`].
    pub fn run_beside(
        &mut self,
        run: Run,
        other_size_bytes: u64,
        other_bytes_per_second: u64,
    ) -> io::Result<(Samples, f64)> {
        let mut other = DiskProbe::open(&self.directory)?;
        other.prepare(FileState::Written, other_size_bytes)?;
        let ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let background = scope.spawn(|| other.write_paced(other_bytes_per_second, &ended));
            let samples = self.run(run);
            ended.store(true, Ordering::Release);
            let reached = background.join().unwrap_or_else(|panic| {
                std::panic::resume_unwind(panic);
            });
            Ok((samples?, reached?))
        })
    }

    fn write_paced(&mut self, bytes_per_second: u64, ended: &AtomicBool) -> io::Result<f64> {
        let data = self.data.clone();
        let started = Instant::now();
        let run = Run {
            size_bytes: WRITE_BYTES_MAX,
            depth: 2,
            time: Duration::MAX,
            bytes_max: u64::MAX,
        };
        let samples = self.drive(run, &data, false, &mut |written: u64| {
            let due = written as f64 / bytes_per_second.max(1) as f64;
            while !ended.load(Ordering::Acquire) && started.elapsed().as_secs_f64() < due {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended.load(Ordering::Acquire)
        })?;
        Ok(samples.bytes_per_second())
    }

    /// Keeps `run.depth` writes of `data` on their way until time or bytes are used up or `ends`,
    /// which is asked before each write with the bytes so far, says so.
    fn drive(
        &mut self,
        run: Run,
        data: &Slice,
        durable: bool,
        ends: &mut dyn FnMut(u64) -> bool,
    ) -> io::Result<Samples> {
        assert!(run.size_bytes.is_multiple_of(BLOCK_BYTES) && run.size_bytes <= data.len());
        assert!((1..=DEPTH_MAX).contains(&run.depth) && self.size_bytes > 0);
        let started = Instant::now();
        let mut samples = Samples::default();
        let mut free: Vec<usize> = (0..run.depth).collect();
        let mut submitted = [started; DEPTH_MAX];
        let (mut position, mut sent_bytes, mut failure) = (0_u64, 0_u64, None);
        loop {
            while failure.is_none()
                && !free.is_empty()
                && sent_bytes + run.size_bytes as u64 <= run.bytes_max
                && (sent_bytes == 0 || started.elapsed() < run.time)
                && samples.latencies_us.len() < SAMPLES_MAX
                && !ends(sent_bytes)
            {
                let slot = free.pop().expect("checked");
                submitted[slot] = Instant::now();
                self.push(slot, position, run.size_bytes, data, durable);
                sent_bytes += run.size_bytes as u64;
                position += run.size_bytes as u64;
                if position + run.size_bytes as u64 > self.size_bytes {
                    position = 0;
                }
            }
            if free.len() == run.depth {
                break;
            }
            // After a failure only what is on its way is waited for.
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("io_uring_enter of the disk probe: {error}"),
                Ok(_) => {}
            }
            for entry in self.ring.completion() {
                let slot = entry.user_data() as usize;
                free.push(slot);
                match outcome(entry.result(), run.size_bytes) {
                    Ok(()) => {
                        let took = submitted[slot].elapsed().as_micros();
                        samples.latencies_us.push(took as u64);
                        samples.bytes += run.size_bytes as u64;
                    }
                    Err(error) => failure = Some(error),
                }
            }
        }
        samples.elapsed_us = started.elapsed().as_micros() as u64;
        samples.latencies_us.sort_unstable();
        failure.map_or(Ok(samples), Err)
    }

    fn push(&mut self, slot: usize, position: u64, size_bytes: usize, data: &Slice, durable: bool) {
        let flags = if durable { libc::RWF_DSYNC } else { 0 };
        let file = types::Fd(self.file.as_fd().as_raw_fd());
        let entry = opcode::Write::new(file, data.as_ptr(), size_bytes as u32)
            .offset(position)
            .rw_flags(flags)
            .build()
            .user_data(slot as u64);
        // SAFETY: `data` and the file outlive the write: `drive` returns only when every slot is
        // free again.
        unsafe { self.ring.submission().push(&entry) }.expect("as many entries as slots");
    }
}

fn outcome(result: i32, size_bytes: usize) -> io::Result<()> {
    match usize::try_from(result) {
        Err(_) => Err(io::Error::from_raw_os_error(-result)),
        Ok(count) if count == size_bytes => Ok(()),
        Ok(count) => Err(io::Error::new(
            io::ErrorKind::WriteZero,
            format!("{count} of {size_bytes} bytes were written"),
        )),
    }
}

fn nameless_file(directory: &Path) -> io::Result<fs::File> {
    let path = directory.join(FILE_NAME);
    remove_if_there(&path)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    // A file system without direct I/O creates the file all the same.
    remove_if_there(&path)?;
    file
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn zeroes() -> Slice {
    let mut buffer = AppendBuf::allocate(WRITE_BYTES_MAX);
    buffer.append_with(WRITE_BYTES_MAX, |bytes| bytes.len());
    buffer.whole()
}

/// Bytes that a device cannot compress or share.
fn noise() -> Slice {
    let mut random = fastrand::Rng::with_seed(0x7065_7263_6f6c_6f67);
    let mut buffer = AppendBuf::allocate(WRITE_BYTES_MAX);
    buffer.append_with(WRITE_BYTES_MAX, |bytes| {
        random.fill(bytes);
        bytes.len()
    });
    buffer.whole()
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn run(size_bytes: usize, depth: usize, bytes_max: u64) -> Run {
        Run {
            size_bytes,
            depth,
            time: Duration::from_secs(20),
            bytes_max,
        }
    }

    #[test]
    fn writes_as_much_as_it_may_into_files_of_every_state_and_leaves_nothing() {
        let folder = tempfile::tempdir_in(".").expect("tempdir");
        let mut probe = DiskProbe::open(folder.path()).expect("a file system with direct I/O");
        assert!(probe.free_bytes().expect("statvfs") > 0);
        for state in [FileState::Written, FileState::Zeroed, FileState::Allocated] {
            probe.prepare(state, 2 << 20).expect("room");
            for (size_bytes, depth, writes) in [(4096, 8, 33), (65_536, 2, 40), (1 << 20, 1, 3)] {
                let bytes = (size_bytes * writes) as u64;
                let samples = probe.run(run(size_bytes, depth, bytes)).expect("written");
                assert_eq!(samples.latencies_us.len(), writes);
                assert_eq!(samples.bytes, bytes);
                assert!(samples.latencies_us.is_sorted());
            }
        }
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn no_time_at_all_is_one_write() {
        let folder = tempfile::tempdir_in(".").expect("tempdir");
        let mut probe = DiskProbe::open(folder.path()).expect("direct I/O");
        probe.prepare(FileState::Zeroed, 1 << 20).expect("room");
        let none = Run {
            time: Duration::ZERO,
            ..run(4096, 4, u64::MAX)
        };
        assert_eq!(probe.run(none).expect("written").latencies_us.len(), 1);
    }

    #[test]
    fn background_writes_end_with_the_run_beside_them() {
        let folder = tempfile::tempdir_in(".").expect("tempdir");
        let mut probe = DiskProbe::open(folder.path()).expect("direct I/O");
        probe.prepare(FileState::Written, 1 << 20).expect("room");
        let (samples, reached) = probe
            .run_beside(run(4096, 1, 4096 * 8), 2 << 20, 1 << 30)
            .expect("written");
        assert_eq!(samples.latencies_us.len(), 8);
        assert!(reached.is_finite());
        assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 0);
    }

    #[test]
    fn quantiles_and_rates() {
        let samples = Samples {
            elapsed_us: 1_000_000,
            bytes: 4000,
            latencies_us: (1..=100).collect(),
        };
        assert_eq!(samples.quantile_us(0.5), 51);
        assert_eq!(samples.quantile_us(0.99), 100);
        assert_eq!(samples.quantile_us(1.0), 100);
        assert!((samples.writes_per_second() - 100.0).abs() < 1e-9);
        assert!((samples.bytes_per_second() - 4000.0).abs() < 1e-9);
        assert_eq!(Samples::default().quantile_us(0.5), 0);
    }

    #[test]
    fn short_and_failed_writes_are_errors() {
        assert!(outcome(4096, 4096).is_ok());
        assert!(outcome(512, 4096).is_err());
        let error = outcome(-libc::ENOSPC, 4096).expect_err("no space");
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
