//! What `percolog tune disk` measures, in which order, and within which bounds.
//!
//! Everything is measured in two passes, one after the other, so that a figure which the neighbours
//! of this machine disturbed does not stand alone.

use std::io;
use std::path::Path;
use std::time::Duration;

use crate::runtime::clock;
use crate::runtime::disk_probe::{DiskProbe, FileState, Run, Samples, WRITE_BYTES_MAX};

/// Sizes of writes.
pub const SIZES_BYTES: [usize; 5] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];
/// Writes on their way at a time.
pub const DEPTHS: [usize; 4] = [1, 2, 4, 8];
/// What background writes ask for, as parts of what the device can do.
const PACES: [f64; 5] = [0.125, 0.25, 0.375, 0.5, 0.75];
/// Passes over everything.
pub const PASSES: usize = 2;
/// The file that is written into, at most; what one run writes at most is four times this.
const REGION_BYTES_MAX: u64 = 32 << 20;
const REGION_BYTES_MIN: u64 = 4 << 20;
/// What has to stay free beside the files of the probe.
const RESERVE_BYTES: u64 = 256 << 20;
/// Part of the time that goes to the table; the rest goes to background writes.
const TABLE_SHARE: f64 = 0.75;
/// Runs take about as much time again to prepare their files.
const RUNS: f64 = (SIZES_BYTES.len() * DEPTHS.len() * 4 * PASSES) as f64;
/// Two measurements of the same thing differ by less than this when nothing disturbs them.
const ALIKE: f64 = 0.8;
/// No disk gains more from twice as many writes on their way.
pub(super) const DOUBLE_GAIN_MAX: f64 = 2.2;
/// What stands for the journal's writes while background writes are measured.
const FOREGROUND_BYTES: usize = 16 << 10;
const FOREGROUND_DEPTH: usize = 2;

/// Writes of one kind.
#[derive(Clone, PartialEq, Debug)]
pub struct Cell {
    /// Into what.
    pub state: FileState,
    /// Each.
    pub size_bytes: usize,
    /// At a time.
    pub depth: usize,
    /// In a second.
    pub writes_per_second: f64,
    /// Half of them within this.
    pub half_us: u64,
    /// 99 of 100 within this.
    pub most_us: u64,
}

/// Durable writes beside background writes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Beside {
    /// What the background writes asked for.
    pub asked_bytes_per_second: u64,
    /// What they reached.
    pub reached_bytes_per_second: f64,
    /// Durable writes in a second.
    pub writes_per_second: f64,
}

/// One pass over everything, as far as time allowed.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Pass {
    /// The table.
    pub cells: Vec<Cell>,
    /// Durable writes in a second without anything beside them: before and after the rest.
    pub alone_per_second: [f64; 2],
    /// The same beside background writes, from slow to fast.
    pub beside: Vec<Beside>,
}

impl Pass {
    /// Writes a second of a kind, if that was measured.
    #[must_use]
    pub fn rate(&self, state: FileState, size_bytes: usize, depth: usize) -> Option<f64> {
        let is_it =
            |cell: &&Cell| (cell.state, cell.size_bytes, cell.depth) == (state, size_bytes, depth);
        let cell = self.cells.iter().find(is_it)?;
        (cell.writes_per_second > 0.0).then_some(cell.writes_per_second)
    }

    /// Writes without anything beside them, when nothing else can have slowed them down: both
    /// measurements are alike, and no writes beside others were faster.
    #[must_use]
    pub fn alone(&self) -> Option<f64> {
        let [before, after] = self.alone_per_second;
        let (least, most) = (before.min(after), before.max(after));
        let beside = self.beside.iter().map(|beside| beside.writes_per_second);
        let is_sound = least >= ALIKE * most && beside.fold(0.0, f64::max) <= most / ALIKE;
        (is_sound && least > 0.0).then_some(most)
    }

    /// Whether twice as many writes on their way gave far more than twice as much: then the fewer
    /// ones waited for something else than the disk, as a rule for a CPU that others used.
    #[must_use]
    pub fn is_disturbed(&self) -> bool {
        let mut pairs = 0;
        let mut beyond = 0;
        for size_bytes in SIZES_BYTES {
            for pair in DEPTHS.windows(2) {
                let rate = |depth| self.rate(FileState::Written, size_bytes, depth);
                if let (Some(few), Some(many)) = (rate(pair[0]), rate(pair[1])) {
                    pairs += 1;
                    beyond += usize::from(many > few * DOUBLE_GAIN_MAX);
                }
            }
        }
        beyond * 10 > pairs
    }

    /// Most bytes a second with the largest writes.
    #[must_use]
    pub fn bandwidth(&self) -> Option<f64> {
        let rates = DEPTHS
            .iter()
            .filter_map(|depth| self.rate(FileState::Written, WRITE_BYTES_MAX, *depth));
        rates
            .reduce(f64::max)
            .map(|rate| rate * WRITE_BYTES_MAX as f64)
    }
}

/// A measurement that is going on.
struct Measurement<'a> {
    directory: &'a Path,
    probe: DiskProbe,
    region_bytes: u64,
    run_time: Duration,
    beside_time: Duration,
    deadline_us: u64,
    progress: &'a mut dyn FnMut(&str),
}

/// Measures the disk of `directory` for about `seconds`; `progress` is told what comes next.
///
/// # Errors
/// A sentence about what the disk does not do, or that it is too full.
pub fn measure(
    directory: &Path,
    seconds: u32,
    progress: &mut dyn FnMut(&str),
) -> Result<Vec<Pass>, String> {
    let say = |error: io::Error| format!("{}: {error}", directory.display());
    let probe = DiskProbe::open(directory).map_err(say)?;
    let free = probe.free_bytes().map_err(say)?;
    let needed = RESERVE_BYTES + 3 * REGION_BYTES_MAX;
    if free < needed {
        return Err(format!(
            "{}: {} MiB are free, the probe needs {} MiB: make room first",
            directory.display(),
            free >> 20,
            needed >> 20
        ));
    }
    let time = f64::from(seconds);
    let runs_beside = ((PACES.len() + 2) * PASSES) as f64;
    let mut measurement = Measurement {
        directory,
        probe,
        region_bytes: REGION_BYTES_MAX,
        run_time: Duration::from_secs_f64(time * TABLE_SHARE / RUNS),
        beside_time: Duration::from_secs_f64(time * (1.0 - TABLE_SHARE) / runs_beside),
        deadline_us: clock::monotonic_us() + u64::from(seconds) * 1_250_000,
        progress,
    };
    measurement.choose_region().map_err(say)?;
    let mut passes = Vec::new();
    for pass in 1..=PASSES {
        passes.push(measurement.pass(pass).map_err(say)?);
    }
    Ok(passes)
}

impl Measurement<'_> {
    fn is_late(&self) -> bool {
        clock::monotonic_us() >= self.deadline_us
    }

    /// As much as the disk writes in the time of one run, so that files are prepared quickly.
    fn choose_region(&mut self) -> io::Result<()> {
        self.probe.prepare(FileState::Zeroed, REGION_BYTES_MIN)?;
        let run = Run {
            size_bytes: WRITE_BYTES_MAX,
            depth: 2,
            time: Duration::from_millis(100),
            bytes_max: 4 * REGION_BYTES_MIN,
        };
        let rate = self.probe.run(run)?.bytes_per_second();
        let bytes = (rate * self.run_time.as_secs_f64()) as u64;
        let bytes = bytes.clamp(REGION_BYTES_MIN, REGION_BYTES_MAX);
        self.region_bytes = bytes.next_multiple_of(WRITE_BYTES_MAX as u64);
        Ok(())
    }

    fn pass(&mut self, number: usize) -> io::Result<Pass> {
        let mut pass = Pass::default();
        for size_bytes in SIZES_BYTES {
            let text = format!(
                "pass {number} of {PASSES}: writes of {} KiB",
                size_bytes >> 10
            );
            (self.progress)(&text);
            for depth in DEPTHS {
                if self.is_late() {
                    return Ok(pass);
                }
                self.cells(size_bytes, depth, &mut pass.cells)?;
            }
        }
        (self.progress)(&format!("pass {number} of {PASSES}: background writes"));
        if let Some(bandwidth) = pass.bandwidth() {
            self.beside(bandwidth, &mut pass)?;
        }
        Ok(pass)
    }

    fn cells(&mut self, size_bytes: usize, depth: usize, cells: &mut Vec<Cell>) -> io::Result<()> {
        self.probe.prepare(FileState::Written, self.region_bytes)?;
        let again = 4 * self.region_bytes;
        let written = self.run(size_bytes, depth, self.run_time, again)?;
        // As much as that needed, so that no block is written twice.
        let once = written.bytes.next_multiple_of(WRITE_BYTES_MAX as u64);
        let once = once.clamp(WRITE_BYTES_MAX as u64, self.region_bytes);
        cells.push(cell(FileState::Written, size_bytes, depth, &written));
        for state in [FileState::Zeroed, FileState::Allocated] {
            match self.probe.prepare(state, once) {
                Ok(()) => {}
                // Some file systems cannot reserve.
                Err(error) if error.kind() == io::ErrorKind::Unsupported => continue,
                Err(error) => return Err(error),
            }
            let samples = self.run(size_bytes, depth, self.run_time, once)?;
            cells.push(cell(state, size_bytes, depth, &samples));
        }
        Ok(())
    }

    fn run(
        &mut self,
        size_bytes: usize,
        depth: usize,
        time: Duration,
        bytes_max: u64,
    ) -> io::Result<Samples> {
        self.probe.run(Run {
            size_bytes,
            depth,
            time,
            bytes_max,
        })
    }

    fn beside(&mut self, bandwidth: f64, pass: &mut Pass) -> io::Result<()> {
        let run = Run {
            size_bytes: FOREGROUND_BYTES,
            depth: FOREGROUND_DEPTH,
            time: self.beside_time,
            bytes_max: u64::MAX,
        };
        self.probe = DiskProbe::open(self.directory)?;
        self.probe.prepare(FileState::Written, self.region_bytes)?;
        pass.alone_per_second[0] = self.probe.run(run)?.writes_per_second();
        for pace in PACES {
            if self.is_late() {
                break;
            }
            let asked_bytes_per_second = (bandwidth * pace) as u64;
            let (samples, reached_bytes_per_second) =
                self.probe
                    .run_beside(run, self.region_bytes, asked_bytes_per_second)?;
            pass.beside.push(Beside {
                asked_bytes_per_second,
                reached_bytes_per_second,
                writes_per_second: samples.writes_per_second(),
            });
        }
        pass.alone_per_second[1] = self.probe.run(run)?.writes_per_second();
        Ok(())
    }
}

fn cell(state: FileState, size_bytes: usize, depth: usize, samples: &Samples) -> Cell {
    Cell {
        state,
        size_bytes,
        depth,
        writes_per_second: samples.writes_per_second(),
        half_us: samples.quantile_us(0.5),
        most_us: samples.quantile_us(0.99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measures_everything_twice_and_leaves_nothing() {
        let folder = tempfile::tempdir_in(".").expect("tempdir");
        let mut told = 0;
        let passes = measure(folder.path(), 4, &mut |_| told += 1).expect("a disk");
        assert_eq!(passes.len(), PASSES);
        assert!(told > 0);
        let first = &passes[0];
        assert!(
            first
                .rate(FileState::Written, SIZES_BYTES[0], DEPTHS[0])
                .is_some()
        );
        for cell in passes.iter().flat_map(|pass| &pass.cells) {
            assert!(
                cell.writes_per_second > 0.0 && cell.half_us <= cell.most_us,
                "{cell:?}"
            );
        }
        let left = std::fs::read_dir(folder.path()).expect("readable").count();
        assert_eq!(left, 0);
    }
}
