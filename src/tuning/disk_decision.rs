//! What the figures of a disk mean for the settings.
//!
//! Each setting is derived from every pass by itself. It leaves its default only where all passes
//! put it on the same side of it, and then goes as far as the most careful of them.

use super::disk_measure::{DOUBLE_GAIN_MAX, Pass};
use crate::config::disk_profile::DiskSettings;
use crate::runtime::disk_probe::FileState;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The smallest write, which stands for what any write costs beside its bytes.
const SMALL_BYTES: usize = 4 << 10;
/// Sizes of groups that a journal writes.
const GROUP_SIZES_BYTES: [usize; 3] = [4 << 10, 16 << 10, 64 << 10];
/// A second group in flight has to gain this much to be kept.
const SECOND_GAIN: f64 = 1.1;
/// More than two have to gain nearly as much as there are more of them: groups become smaller then,
/// and a device that merely shares flushes between writes gains nothing from smaller groups.
const MORE_GAIN: f64 = 1.8;
/// What background writes may take from durable ones.
const HARM: f64 = 0.75;
/// What background writes must reach of what they asked for, to have been there at all.
const REACHED: f64 = 0.8;
/// The slowest background writes, as a part of what the device can do.
const PACE_MIN: f64 = 1.0 / 16.0;
/// No thresholds beyond these: the figures do not reach further.
const IDLE_MAX_BYTES: u64 = 512 * KIB;
const IDLE_MIN_BYTES: u64 = 16 * KIB;
const BUSY_MIN_BYTES: u64 = 4 * KIB;

/// A setting, and the sentence that says why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Reason {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: u64,
    /// Why.
    pub why: String,
}

/// The settings for a disk, and why.
#[must_use]
pub fn decide(passes: &[Pass], defaults: &DiskSettings) -> (DiskSettings, Vec<Reason>) {
    let derive =
        |of: fn(&Pass) -> Option<u64>| -> Vec<Option<u64>> { passes.iter().map(of).collect() };
    let groups = agreed(
        &derive(groups_in_flight),
        defaults.journal_groups_in_flight as u64,
    );
    let idle = agreed(&derive(idle_threshold), defaults.direct_write_bytes as u64);
    let busy = agreed(
        &derive(busy_threshold),
        defaults.direct_write_busy_bytes as u64,
    );
    let pace = agreed(&derive(pace), defaults.background_write_bytes_per_second);
    let settings = DiskSettings {
        journal_groups_in_flight: groups.0 as usize,
        direct_write_bytes: idle.0 as usize,
        direct_write_busy_bytes: busy.0.min(idle.0) as usize,
        background_write_bytes_per_second: pace.0,
    };
    let texts = [
        ("two or more writes at a time against one", groups.1),
        (
            "one more durable write costs as much as these bytes do a second time",
            idle.1,
        ),
        ("the same while four writes are on their way", busy.1),
        (
            "background writes of this rate leave durable ones three quarters of theirs",
            pace.1,
        ),
    ];
    let reasons = settings.entries().into_iter().zip(texts);
    let reasons = reasons.map(|((name, value), (what, outcome))| Reason {
        name,
        value,
        why: format!("{outcome}: {what}"),
    });
    (settings, reasons.collect())
}

/// The value that all passes support, and in a word what became of the default.
fn agreed(derived: &[Option<u64>], default: u64) -> (u64, &'static str) {
    let Some(values) = derived.iter().copied().collect::<Option<Vec<u64>>>() else {
        return (default, "default, the figures do not tell");
    };
    let (Some(least), Some(most)) = (values.iter().min(), values.iter().max()) else {
        return (default, "default, the figures do not tell");
    };
    match (*least > default, *most < default) {
        (true, _) => (*least, "raised"),
        (_, true) => (*most, "lowered"),
        _ if least == most => (default, "default, confirmed"),
        _ => (default, "default, the passes do not agree"),
    }
}

fn groups_in_flight(pass: &Pass) -> Option<u64> {
    let gain = |size: usize, few: usize, many: usize| -> Option<f64> {
        let rate = |depth| pass.rate(FileState::Written, size, depth);
        let gain = rate(many)? / rate(few)?;
        (gain <= DOUBLE_GAIN_MAX).then_some(gain)
    };
    let gains = |few, many| -> Option<Vec<f64>> {
        GROUP_SIZES_BYTES
            .iter()
            .map(|size| gain(*size, few, many))
            .collect()
    };
    let (second, more) = (gains(1, 2)?, gains(2, 4)?);
    Some(match () {
        () if second.iter().all(|gain| *gain < SECOND_GAIN) => 1,
        () if more.iter().all(|gain| *gain >= MORE_GAIN) => 4,
        () => 2,
    })
}

/// Seconds that `depth` small durable writes take together.
fn small_seconds(pass: &Pass, depth: usize) -> Option<f64> {
    let rate = pass.rate(FileState::Written, SMALL_BYTES, depth)?;
    Some(depth as f64 / rate)
}

/// Bytes that go straight to a segment cost one durable write more beside the group; bytes in the
/// journal cost their way to the segment later. The threshold is where these are equal.
fn threshold(pass: &Pass, one_more_seconds: f64) -> Option<u64> {
    let bytes = one_more_seconds * pass.bandwidth()?;
    (bytes.is_finite() && bytes > 0.0).then(|| 1 << (bytes.log2().round().clamp(0.0, 40.0) as u32))
}

fn idle_threshold(pass: &Pass) -> Option<u64> {
    let one_more = small_seconds(pass, 2)? - small_seconds(pass, 1)?;
    threshold(pass, one_more).map(|bytes| bytes.clamp(IDLE_MIN_BYTES, IDLE_MAX_BYTES))
}

fn busy_threshold(pass: &Pass) -> Option<u64> {
    let one_more = (small_seconds(pass, 8)? - small_seconds(pass, 4)?) / 4.0;
    threshold(pass, one_more).map(|bytes| bytes.clamp(BUSY_MIN_BYTES, IDLE_MAX_BYTES))
}

fn pace(pass: &Pass) -> Option<u64> {
    let (bandwidth, alone) = (pass.bandwidth()?, pass.alone()?);
    let first = pass.beside.first()?;
    if first.reached_bytes_per_second < REACHED * first.asked_bytes_per_second as f64 {
        return None;
    }
    let harmless = pass.beside.iter().take_while(|beside| {
        beside.writes_per_second >= HARM * alone
            && beside.reached_bytes_per_second >= REACHED * beside.asked_bytes_per_second as f64
    });
    let fastest = harmless.last().map(|beside| beside.asked_bytes_per_second);
    let bytes = fastest.unwrap_or((bandwidth * PACE_MIN) as u64);
    Some((bytes / MIB).max(1) * MIB)
}

#[cfg(test)]
mod tests {
    use super::super::disk_measure::{Beside, Cell};
    use super::*;
    use crate::config::broker::BrokerConfig;

    /// A disk of so many small durable writes a second at depths 1, 2, 4 and 8, and so many bytes.
    fn pass(small: [f64; 4], bandwidth: f64, slowed_from: f64) -> Pass {
        let cell = |size_bytes: usize, depth, writes_per_second| Cell {
            state: FileState::Written,
            size_bytes,
            depth,
            writes_per_second,
            half_us: 0,
            most_us: 0,
        };
        let mut cells = Vec::new();
        for (depth, rate) in [1, 2, 4, 8].into_iter().zip(small) {
            let groups = GROUP_SIZES_BYTES.map(|size| cell(size, depth, rate));
            cells.extend(groups);
            cells.push(cell(1 << 20, depth, bandwidth / MIB as f64));
        }
        let beside = [0.25, 0.5, 0.75].map(|part| Beside {
            asked_bytes_per_second: (part * bandwidth) as u64,
            reached_bytes_per_second: part * bandwidth,
            writes_per_second: if part < slowed_from { 1000.0 } else { 100.0 },
        });
        Pass {
            cells,
            alone_per_second: [1000.0, 900.0],
            beside: beside.to_vec(),
        }
    }

    fn defaults() -> DiskSettings {
        DiskSettings::of(&BrokerConfig::defaults())
    }

    /// The disk that the defaults were measured on.
    fn known() -> Pass {
        pass([4500.0, 7000.0, 11_000.0, 18_500.0], 1050e6, 0.5)
    }

    #[test]
    fn the_disk_that_the_defaults_come_from_confirms_them() {
        let (settings, reasons) = decide(&[known(), known()], &defaults());
        assert_eq!(settings.journal_groups_in_flight, 2);
        assert_eq!(settings.direct_write_bytes, 65_536);
        assert_eq!(settings.direct_write_busy_bytes, 16_384);
        assert_eq!(settings.background_write_bytes_per_second, 250 * MIB);
        assert_eq!(reasons.len(), 4);
        assert!(
            reasons[1].why.starts_with("default, confirmed"),
            "{reasons:?}"
        );
    }

    #[test]
    fn a_disk_that_does_one_write_at_a_time_gets_one_group() {
        let slow = pass([100.0, 101.0, 102.0, 103.0], 100e6, 0.0);
        let (settings, _) = decide(&[slow.clone(), slow], &defaults());
        assert_eq!(settings.journal_groups_in_flight, 1);
        assert_eq!(settings.direct_write_bytes as u64, IDLE_MAX_BYTES);
        assert_eq!(settings.background_write_bytes_per_second, 5 * MIB);
    }

    #[test]
    fn a_disk_with_many_channels_gets_more_of_everything() {
        let fast = pass([50e3, 98e3, 190e3, 370e3], 6e9, 2.0);
        let (settings, _) = decide(&[fast.clone(), fast], &defaults());
        assert_eq!(settings.journal_groups_in_flight, 4);
        assert_eq!(settings.direct_write_bytes, 16_384);
        assert!(settings.direct_write_busy_bytes <= settings.direct_write_bytes);
        assert_eq!(settings.background_write_bytes_per_second, 4291 * MIB);
    }

    #[test]
    fn what_the_passes_do_not_agree_on_stays_as_it_is() {
        let fast = pass([50e3, 98e3, 190e3, 370e3], 6e9, 2.0);
        let slow = pass([100.0, 101.0, 102.0, 103.0], 100e6, 0.0);
        let (settings, reasons) = decide(&[fast, slow], &defaults());
        assert_eq!(settings.journal_groups_in_flight, 2);
        assert_eq!(settings.direct_write_bytes, defaults().direct_write_bytes);
        let disagreements = reasons.iter().filter(|reason| reason.why.contains("agree"));
        assert!(disagreements.count() >= 3, "{reasons:?}");
    }

    #[test]
    fn figures_of_a_busy_machine_change_nothing() {
        // Seen on two CPUs that others used: one write at a time waits for a CPU.
        let mut busy = pass([285.0, 4593.0, 8797.0, 19_494.0], 2.2e9, 2.0);
        busy.alone_per_second = [300.0, 950.0];
        let mut slower_alone = pass([285.0, 4593.0, 8797.0, 19_494.0], 2.2e9, 2.0);
        slower_alone.alone_per_second = [600.0, 600.0];
        assert!(busy.is_disturbed() && !known().is_disturbed());
        let (settings, reasons) = decide(&[busy, slower_alone], &defaults());
        assert_eq!(settings, defaults(), "{reasons:?}");
    }

    #[test]
    fn too_few_or_senseless_figures_change_nothing() {
        let mut odd = known();
        odd.beside.clear();
        // Two writes in less time than one.
        odd.cells.retain(|cell| cell.depth != 8);
        for cell in odd.cells.iter_mut().filter(|cell| cell.depth == 2) {
            cell.writes_per_second = 1e9;
        }
        for passes in [vec![], vec![Pass::default(); 2], vec![known(), odd]] {
            let (settings, _) = decide(&passes, &defaults());
            assert_eq!(settings.direct_write_bytes, defaults().direct_write_bytes);
            assert_eq!(
                settings.direct_write_busy_bytes,
                defaults().direct_write_busy_bytes
            );
            let pace = settings.background_write_bytes_per_second;
            assert_eq!(pace, defaults().background_write_bytes_per_second);
        }
    }
}
