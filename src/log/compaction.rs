//! What compaction decides: whether a log is due, from where to where it is dirty, and which
//! segments become one.
//!
//! Kafka: `LogCleanerManager.cleanableOffsets`, `LogToClean`, `Cleaner.groupSegmentsBySize`. A log
//! is clean below its *first dirty offset*: there every key has one record only. Compaction notes
//! the last offset of every key in the dirty part up to the *first uncleanable offset*, then writes
//! all segments below anew without what those made obsolete.

use std::ops::Range;

use super::bytes::{Fields, Malformed};
use super::position::{Offset, SegmentId};

/// Segments that one swap replaces at most: its journal entry stays small.
pub const SEGMENTS_PER_SWAP_MAX: usize = 256;

/// The live settings of compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionSettings {
    /// `min.cleanable.dirty.ratio`
    pub min_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub max_lag_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
}

/// How far compaction has come in a log. Kafka: the cleaner checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionProgress {
    /// Below it every key has one record only.
    pub first_dirty: Offset,
    /// A run that has not come to its end.
    pub run: Option<CompactionRun>,
}

/// A run of compaction between two of its swaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionRun {
    /// Segments that begin below are done.
    pub next: Offset,
    /// Where the dirty range of the run ends.
    pub end: Offset,
}

/// Bytes of a progress on disk.
pub const PROGRESS_BYTES: usize = 24;
const NO_RUN: i64 = -1;

impl CompactionProgress {
    /// The log was cut: what comes behind is new.
    pub fn cut(&mut self, to: Offset) {
        self.first_dirty = self.first_dirty.min(to);
        self.run = self.run.filter(|run| run.end <= to);
    }

    /// Appends it: first dirty offset 8, then next and end of the run 8 each, -1 without one.
    pub fn encode(&self, into: &mut Vec<u8>) {
        let run = self.run.map_or([NO_RUN; 2], |run| [run.next.0, run.end.0]);
        for offset in [self.first_dirty.0, run[0], run[1]] {
            into.extend_from_slice(&offset.to_le_bytes());
        }
    }

    /// Reads what [`CompactionProgress::encode`] wrote.
    pub fn decode(fields: &mut Fields<'_>) -> Result<CompactionProgress, Malformed> {
        let first_dirty = Offset(fields.i64()?);
        let (next, end) = (Offset(fields.i64()?), Offset(fields.i64()?));
        let run = (end.0 != NO_RUN).then_some(CompactionRun { next, end });
        Ok(CompactionProgress { first_dirty, run })
    }
}

/// A segment as decisions see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentOutline {
    /// Its identity.
    pub id: SegmentId,
    /// Its first offset.
    pub base_offset: Offset,
    /// Its bytes.
    pub size_bytes: u64,
    /// Whether its file is final.
    pub sealed: bool,
    /// Largest timestamp of its batches.
    pub largest_timestamp_ms: i64,
    /// Timestamp of its first batch.
    pub first_timestamp_ms: i64,
}

/// Where a log may be read and cleaned.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    /// The log start.
    pub start: Offset,
    /// The log end.
    pub end: Offset,
    /// What is committed; nothing beyond it is cleaned.
    pub high_watermark: Offset,
}

/// A log in view of compaction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CompactionOutlook {
    /// Where the dirty part begins.
    pub first_dirty: Offset,
    /// Where it ends, at a segment's boundary.
    pub first_uncleanable: Offset,
    /// Bytes of the clean part.
    pub clean_bytes: u64,
    /// Bytes of the dirty part.
    pub cleanable_bytes: u64,
    /// The oldest timestamp of the dirty part, if any has one.
    pub oldest_dirty_ms: Option<i64>,
    /// What is left of an interrupted run.
    run: Option<CompactionRun>,
}

/// What a run is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompactionPlan {
    /// The offsets whose keys count.
    pub first_dirty: Offset,
    /// Where they end.
    pub end: Offset,
    /// Segments that begin below are done already.
    pub from: Offset,
    /// Where the cleanable part of the log ends; see `CleaningRules::round_end`.
    pub round_end: Offset,
}

impl CompactionOutlook {
    /// Looks at a log; `segments` are all of them, the last one is active.
    #[must_use]
    pub fn new(
        segments: &[SegmentOutline],
        progress: CompactionProgress,
        bounds: LogBounds,
        settings: &CompactionSettings,
        now_ms: i64,
    ) -> CompactionOutlook {
        // The log may have been cut or have lost its beginning meanwhile: then all of it is dirty.
        let is_known = progress.first_dirty >= bounds.start && progress.first_dirty <= bounds.end;
        let first_dirty = if is_known {
            progress.first_dirty
        } else {
            bounds.start
        };
        let first_uncleanable =
            first_uncleanable(segments, first_dirty, bounds, settings.min_lag_ms, now_ms);
        let size = |range: Range<usize>| {
            let segments = segments.get(range).unwrap_or(&[]);
            segments.iter().map(|segment| segment.size_bytes).sum()
        };
        let dirty_from = holding(segments, first_dirty);
        let dirty_to = segments.partition_point(|segment| segment.base_offset < first_uncleanable);
        let clean_to = segments.partition_point(|segment| segment.base_offset < first_dirty);
        let active = segments.len().saturating_sub(1);
        let waiting = segments.get(dirty_from..active).unwrap_or(&[]);
        let timestamps = waiting.iter().map(|segment| segment.first_timestamp_ms);
        CompactionOutlook {
            first_dirty,
            first_uncleanable,
            clean_bytes: size(0..clean_to),
            cleanable_bytes: size(dirty_from..dirty_to),
            oldest_dirty_ms: timestamps.filter(|timestamp_ms| *timestamp_ms > 0).min(),
            run: progress.run.filter(|_| is_known),
        }
    }

    /// The part of the log that is dirty, by bytes.
    #[must_use]
    pub fn dirty_ratio(&self) -> f64 {
        match self.clean_bytes + self.cleanable_bytes {
            0 => 0.0,
            total => self.cleanable_bytes as f64 / total as f64,
        }
    }

    /// Whether compaction is to run now.
    #[must_use]
    pub fn is_due(&self, settings: &CompactionSettings, now_ms: i64) -> bool {
        if self.cleanable_bytes == 0 || self.waits() {
            return false;
        }
        let overdue = self
            .oldest_dirty_ms
            .is_some_and(|oldest_ms| oldest_ms < now_ms.saturating_sub(settings.max_lag_ms));
        overdue || self.run.is_some() || self.dirty_ratio() > settings.min_dirty_ratio
    }

    /// Whether an interrupted run cannot go on yet: after a crash some of its segments are sealed
    /// only a little later.
    fn waits(&self) -> bool {
        self.run.is_some_and(|run| run.end > self.first_uncleanable)
    }

    /// What a run does now; none when there is nothing to clean.
    #[must_use]
    pub fn plan(&self) -> Option<CompactionPlan> {
        if self.first_dirty >= self.first_uncleanable || self.waits() {
            return None;
        }
        let resumed = self
            .run
            .filter(|run| run.end > self.first_dirty && run.next < run.end);
        Some(CompactionPlan {
            first_dirty: self.first_dirty,
            end: resumed.map_or(self.first_uncleanable, |run| run.end),
            from: resumed.map_or(Offset(0), |run| run.next),
            round_end: self.first_uncleanable,
        })
    }
}

/// The index of the segment that holds `offset`.
fn holding(segments: &[SegmentOutline], offset: Offset) -> usize {
    segments
        .partition_point(|segment| segment.base_offset <= offset)
        .saturating_sub(1)
}

fn first_uncleanable(
    segments: &[SegmentOutline],
    first_dirty: Offset,
    bounds: LogBounds,
    min_lag_ms: i64,
    now_ms: i64,
) -> Offset {
    let Some((active, complete)) = segments.split_last() else {
        return first_dirty;
    };
    let unsealed = complete.iter().find(|segment| !segment.sealed);
    let too_young = complete
        .get(holding(segments, first_dirty)..)
        .unwrap_or(&[])
        .iter()
        .find(|segment| {
            min_lag_ms > 0 && segment.largest_timestamp_ms > now_ms.saturating_sub(min_lag_ms)
        });
    let bases = [Some(active), unsealed, too_young];
    let first = bases
        .into_iter()
        .flatten()
        .map(|segment| segment.base_offset)
        .min()
        .expect("the active segment is one of them");
    let limit = first.min(bounds.high_watermark);
    // Only whole segments are cleaned.
    segments[holding(segments, limit)].base_offset.min(limit)
}

/// Adjacent segments that become one: together within `segment_bytes`, and all their offsets within
/// 31 bits of the first. `end` is where the last of them ends.
#[must_use]
pub fn group_segments(
    segments: &[SegmentOutline],
    end: Offset,
    segment_bytes: u64,
) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut size_bytes = 0;
    for (index, segment) in segments.iter().enumerate() {
        let segment_end = segments.get(index + 1).map_or(end, |next| next.base_offset);
        if let Some(group) = groups.last_mut() {
            let base_offset = segments[group.start].base_offset;
            let fits = size_bytes + segment.size_bytes <= segment_bytes
                && segment_end.0 - 1 - base_offset.0 <= i64::from(i32::MAX)
                && group.len() < SEGMENTS_PER_SWAP_MAX;
            if fits {
                group.end = index + 1;
                size_bytes += segment.size_bytes;
                continue;
            }
        }
        groups.push(index..index + 1);
        size_bytes = segment.size_bytes;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: CompactionSettings = CompactionSettings {
        min_dirty_ratio: 0.5,
        min_lag_ms: 0,
        max_lag_ms: i64::MAX,
        delete_retention_ms: 0,
    };

    /// Segments of 10 offsets and the given sizes, sealed but for the last; timestamps are offsets.
    fn segments(sizes: &[u64]) -> Vec<SegmentOutline> {
        let outline = |(index, size_bytes): (usize, &u64)| SegmentOutline {
            id: SegmentId(index as u64),
            base_offset: Offset(index as i64 * 10),
            size_bytes: *size_bytes,
            sealed: index + 1 < sizes.len(),
            first_timestamp_ms: index as i64 * 10 + 1,
            largest_timestamp_ms: index as i64 * 10 + 9,
        };
        sizes.iter().enumerate().map(outline).collect()
    }

    fn bounds(segments: &[SegmentOutline]) -> LogBounds {
        let end = Offset(segments.len() as i64 * 10);
        LogBounds {
            start: Offset(0),
            end,
            high_watermark: end,
        }
    }

    fn clean_to(first_dirty: i64) -> CompactionProgress {
        CompactionProgress {
            first_dirty: Offset(first_dirty),
            run: None,
        }
    }

    fn outlook(
        segments: &[SegmentOutline],
        progress: CompactionProgress,
        settings: &CompactionSettings,
        now_ms: i64,
    ) -> CompactionOutlook {
        CompactionOutlook::new(segments, progress, bounds(segments), settings, now_ms)
    }

    #[test]
    fn the_active_segment_is_never_cleaned() {
        let log = segments(&[100, 100, 100]);
        let seen = outlook(&log, clean_to(0), &SETTINGS, 0);
        assert_eq!(
            (seen.first_dirty, seen.first_uncleanable),
            (Offset(0), Offset(20))
        );
        assert_eq!((seen.clean_bytes, seen.cleanable_bytes), (0, 200));
        let alone = outlook(&segments(&[100]), clean_to(0), &SETTINGS, 0);
        assert_eq!(alone.plan(), None);
        assert!(!alone.is_due(&SETTINGS, i64::MAX));
        let none = outlook(&[], clean_to(0), &SETTINGS, 0);
        assert_eq!((none.plan(), none.dirty_ratio()), (None, 0.0));
    }

    #[test]
    fn a_segment_that_is_not_sealed_or_not_committed_stops_cleaning() {
        let mut log = segments(&[100, 100, 100, 100]);
        let mut limits = bounds(&log);
        limits.high_watermark = Offset(25);
        let seen = CompactionOutlook::new(&log, clean_to(0), limits, &SETTINGS, 0);
        assert_eq!(seen.first_uncleanable, Offset(20), "whole segments only");
        log[1].sealed = false;
        let seen = CompactionOutlook::new(&log, clean_to(0), limits, &SETTINGS, 0);
        assert_eq!(seen.first_uncleanable, Offset(10));
    }

    #[test]
    fn the_dirty_ratio_counts_bytes_and_must_be_exceeded() {
        let log = segments(&[100, 100, 5]);
        let half = outlook(&log, clean_to(10), &SETTINGS, 0);
        assert_eq!(half.dirty_ratio(), 0.5);
        assert!(
            !half.is_due(&SETTINGS, 0),
            "Kafka demands more than the ratio"
        );
        let more = CompactionSettings {
            min_dirty_ratio: 0.49,
            ..SETTINGS
        };
        assert!(half.is_due(&more, 0));
        let clean = outlook(&log, clean_to(20), &SETTINGS, 0);
        assert_eq!((clean.cleanable_bytes, clean.clean_bytes), (0, 200));
        let any = CompactionSettings {
            min_dirty_ratio: 0.0,
            ..SETTINGS
        };
        assert!(!clean.is_due(&any, i64::MAX), "nothing is dirty");
    }

    #[test]
    fn young_records_are_not_cleaned() {
        let log = segments(&[100, 100, 100, 100]);
        let lag = CompactionSettings {
            min_lag_ms: 30,
            ..SETTINGS
        };
        let at = |now_ms| outlook(&log, clean_to(0), &lag, now_ms).first_uncleanable;
        assert_eq!(at(38), Offset(0));
        assert_eq!(at(39), Offset(10), "exactly as old as demanded");
        assert_eq!(at(49), Offset(20));
        assert_eq!(at(1000), Offset(30));
        let old = outlook(&log, clean_to(10), &lag, 38);
        assert_eq!(old.plan(), None, "the lag does not unclean what is clean");
    }

    #[test]
    fn a_record_that_waits_too_long_makes_the_log_due() {
        let log = segments(&[1000, 100, 100]);
        let lag = CompactionSettings {
            max_lag_ms: 100,
            ..SETTINGS
        };
        let seen = outlook(&log, clean_to(10), &lag, 0);
        assert_eq!(seen.oldest_dirty_ms, Some(11));
        assert!(!seen.is_due(&lag, 111));
        assert!(seen.is_due(&lag, 112));
        let mut timeless = log.clone();
        timeless[1].first_timestamp_ms = -1;
        let seen = outlook(&timeless, clean_to(10), &lag, 0);
        assert!(!seen.is_due(&lag, i64::MAX), "no timestamp, no age");
    }

    #[test]
    fn progress_outside_the_log_means_that_all_is_dirty() {
        let log = segments(&[100, 100, 100]);
        let mut limits = bounds(&log);
        limits.start = Offset(12);
        for progress in [clean_to(5), clean_to(31)] {
            let seen = CompactionOutlook::new(&log, progress, limits, &SETTINGS, 0);
            assert_eq!(seen.first_dirty, Offset(12));
        }
    }

    #[test]
    fn what_follows_a_cut_is_dirty() {
        let run = CompactionRun {
            next: Offset(5),
            end: Offset(20),
        };
        let mut progress = CompactionProgress {
            first_dirty: Offset(10),
            run: Some(run),
        };
        progress.cut(Offset(20));
        assert_eq!(
            (progress.first_dirty, progress.run),
            (Offset(10), Some(run))
        );
        progress.cut(Offset(8));
        assert_eq!((progress.first_dirty, progress.run), (Offset(8), None));
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_was_with_the_same_keys() {
        let log = segments(&[100, 100, 100, 100]);
        let run = CompactionRun {
            next: Offset(10),
            end: Offset(20),
        };
        let begun = CompactionProgress {
            first_dirty: Offset(0),
            run: Some(run),
        };
        let seen = outlook(&log, begun, &SETTINGS, 0);
        assert!(seen.is_due(&SETTINGS, 0));
        let plan = seen.plan().expect("there is a rest");
        assert_eq!((plan.from, plan.end), (Offset(10), Offset(20)));
        assert_eq!(plan.round_end, Offset(30));
        let mut unsealed = log.clone();
        unsealed[1].sealed = false;
        let seen = outlook(&unsealed, begun, &SETTINGS, 0);
        assert_eq!(seen.plan(), None, "it waits for the seal");
        assert!(!seen.is_due(&SETTINGS, 0));
    }

    #[test]
    fn groups_stay_within_bytes_offsets_and_number() {
        let log = segments(&[40, 40, 40, 100, 0, 0, 150, 10]);
        let groups = group_segments(&log, Offset(80), 100);
        assert_eq!(groups, [0..2, 2..3, 3..6, 6..7, 7..8]);
        let mut far = segments(&[1, 1, 1]);
        far[2].base_offset = Offset(i64::from(i32::MAX));
        let fits = Offset(i64::from(i32::MAX) + 1);
        assert_eq!(group_segments(&far, fits, 100), vec![0..3; 1]);
        assert_eq!(group_segments(&far, Offset(fits.0 + 1), 100), [0..2, 2..3]);
        let many = segments(&[0; SEGMENTS_PER_SWAP_MAX + 1]);
        let end = Offset(many.len() as i64 * 10);
        assert_eq!(
            group_segments(&many, end, 100),
            [
                0..SEGMENTS_PER_SWAP_MAX,
                SEGMENTS_PER_SWAP_MAX..SEGMENTS_PER_SWAP_MAX + 1
            ]
        );
        assert!(group_segments(&[], Offset(0), 100).is_empty());
    }
}
