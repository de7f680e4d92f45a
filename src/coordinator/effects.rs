//! What a decision leaves behind.

use super::transaction_request::MarkerJob;

/// A request whose answer may come later; the host gives the numbers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// A record for the shard's log, in Kafka's format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoordinatorRecord {
    /// The type of record (2 bytes) and its key.
    pub key: Vec<u8>,
    /// The version (2 bytes) and the value; None is a tombstone.
    pub value: Option<Vec<u8>>,
}

/// A producer in one of its epochs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct ProducerIdAndEpoch {
    /// Its id.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
}

/// What one call left: records first, answers behind them.
#[derive(Debug)]
pub struct Effects<A> {
    /// Appended as one batch, in this order.
    pub records: Vec<CoordinatorRecord>,
    /// The records belong to this producer's transaction: they count when it commits.
    pub transaction: Option<ProducerIdAndEpoch>,
    /// Who gets which answer when the records are durable.
    pub answers: Vec<(Ticket, A)>,
    /// Markers to be written when the records are durable.
    pub markers: Vec<MarkerJob>,
}

impl<A> Default for Effects<A> {
    fn default() -> Self {
        Effects {
            records: Vec::new(),
            transaction: None,
            answers: Vec::new(),
            markers: Vec::new(),
        }
    }
}

impl<A> Effects<A> {
    /// Whether nothing was decided.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.answers.is_empty() && self.markers.is_empty()
    }

    /// Bytes of the records.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let value_bytes = |record: &CoordinatorRecord| record.value.as_ref().map_or(0, Vec::len);
        let bytes = |record: &CoordinatorRecord| record.key.len() + value_bytes(record);
        self.records.iter().map(bytes).sum()
    }

    /// Answers a request when the records are durable.
    pub fn answer(&mut self, ticket: Ticket, answer: A) {
        self.answers.push((ticket, answer));
    }
}
