//! Which leader epoch wrote which offsets. Kafka: `LeaderEpochFileCache`.
//!
//! # Format in a checkpoint (little-endian)
//! ```text
//! count 4 | per epoch: leader epoch 4 | start offset 8
//! ```

use super::bytes::{Fields, Malformed, put_count};
use super::position::{LeaderEpoch, Offset};

/// The epochs of one log with their first offsets, both ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    starts: Vec<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    /// The newest epoch.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|(epoch, _)| *epoch)
    }

    /// The epochs with their first offsets, both ascending.
    #[must_use]
    pub fn starts(&self) -> &[(LeaderEpoch, Offset)] {
        &self.starts
    }

    /// Notes that `epoch` begins at `start`; older epochs that would begin there or later vanish.
    /// False when the epoch is known already.
    pub fn begin(&mut self, epoch: LeaderEpoch, start: Offset) -> bool {
        if self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        while self.starts.last().is_some_and(|(_, begun)| *begun >= start) {
            self.starts.pop();
        }
        self.starts.push((epoch, start));
        true
    }

    /// The epoch that wrote `offset`.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.starts
            .iter()
            .rev()
            .find(|(_, start)| *start <= offset)
            .map(|(epoch, _)| *epoch)
    }

    /// The largest epoch not above `asked`, with the offset where it ends (`log_end` for the newest
    /// one). None when nothing that old is known.
    #[must_use]
    pub fn end_of(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if asked == latest {
            return Some((latest, log_end));
        }
        if asked > latest {
            return None;
        }
        let next = self.starts.iter().position(|(epoch, _)| *epoch > asked)?;
        if next == 0 {
            // Kafka answers with the asked epoch and the start of the oldest one.
            return Some((asked, self.starts[0].1));
        }
        Some((self.starts[next - 1].0, self.starts[next].1))
    }

    /// Forgets epochs that ended before `log_start`; the one that covers it begins there now.
    pub fn forget_before(&mut self, log_start: Offset) {
        let covering = self
            .starts
            .iter()
            .rposition(|(_, start)| *start <= log_start);
        if let Some(covering) = covering {
            self.starts.drain(..covering);
            self.starts[0].1 = self.starts[0].1.max(log_start);
        }
    }

    /// Forgets epochs that begin at `end` or later: the log was cut there.
    pub fn cut(&mut self, end: Offset) {
        self.starts.retain(|(_, start)| *start < end);
    }

    /// Appends everything for a checkpoint; the format is at the head of this file.
    pub fn encode(&self, into: &mut Vec<u8>) {
        put_count(into, self.starts.len());
        for (epoch, start) in &self.starts {
            into.extend_from_slice(&epoch.0.to_le_bytes());
            into.extend_from_slice(&start.0.to_le_bytes());
        }
    }

    /// Reads what [`LeaderEpochs::encode`] wrote.
    pub fn decode(fields: &mut Fields<'_>) -> Result<LeaderEpochs, Malformed> {
        let mut starts = Vec::new();
        for _ in 0..fields.count(12)? {
            starts.push((LeaderEpoch(fields.i32()?), Offset(fields.i64()?)));
        }
        Ok(LeaderEpochs { starts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(list: &[(i32, i64)]) -> LeaderEpochs {
        let mut epochs = LeaderEpochs::default();
        for (epoch, start) in list {
            assert!(epochs.begin(LeaderEpoch(*epoch), Offset(*start)));
        }
        epochs
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next() {
        let epochs = epochs(&[(1, 0), (3, 10), (4, 20)]);
        let end = |asked| {
            epochs
                .end_of(LeaderEpoch(asked), Offset(30))
                .map(|(e, o)| (e.0, o.0))
        };
        assert_eq!(end(0), Some((0, 0)));
        assert_eq!(end(1), Some((1, 10)));
        assert_eq!(end(2), Some((1, 10)));
        assert_eq!(end(3), Some((3, 20)));
        assert_eq!(end(4), Some((4, 30)));
        assert_eq!(end(5), None);
    }

    #[test]
    fn an_epoch_that_wrote_nothing_is_replaced() {
        let mut epochs = epochs(&[(1, 0), (3, 10)]);
        assert!(epochs.begin(LeaderEpoch(4), Offset(10)));
        assert!(!epochs.begin(LeaderEpoch(4), Offset(12)));
        assert_eq!(epochs.epoch_of(Offset(9)), Some(LeaderEpoch(1)));
        assert_eq!(epochs.epoch_of(Offset(10)), Some(LeaderEpoch(4)));
    }

    #[test]
    fn forgetting_keeps_the_epoch_of_the_log_start() {
        let mut epochs = epochs(&[(1, 0), (3, 10), (4, 20)]);
        epochs.forget_before(Offset(15));
        assert_eq!(epochs.epoch_of(Offset(14)), None);
        assert_eq!(epochs.epoch_of(Offset(15)), Some(LeaderEpoch(3)));
        let mut bytes = Vec::new();
        epochs.encode(&mut bytes);
        assert_eq!(LeaderEpochs::decode(&mut Fields::new(&bytes)), Ok(epochs));
    }

    #[test]
    fn a_cut_forgets_what_began_behind_it() {
        let mut epochs = epochs(&[(1, 0), (3, 10), (4, 20)]);
        epochs.cut(Offset(20));
        assert_eq!(epochs.latest(), Some(LeaderEpoch(3)));
        epochs.cut(Offset(0));
        assert_eq!(epochs.latest(), None);
    }
}
