//! What a leader decides about requests, without waiting. Kafka: `Partition`, `ReplicaManager`.

/// How a client's idea of the leader epoch compares with ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochJudgement {
    /// The same, or the client has none.
    Current,
    /// The client knows an older leader: it must refresh its metadata.
    Fenced,
    /// The client knows a newer leader than we do.
    Unknown,
}

/// Judges the `current_leader_epoch` of a request; -1 means the client has none. KIP-320.
#[must_use]
pub fn judge_epoch(ours: i32, clients: i32) -> EpochJudgement {
    match clients {
        -1 => EpochJudgement::Current,
        older if older < ours => EpochJudgement::Fenced,
        newer if newer > ours => EpochJudgement::Unknown,
        _ => EpochJudgement::Current,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_are_judged_as_kafka_does() {
        assert_eq!(judge_epoch(3, -1), EpochJudgement::Current);
        assert_eq!(judge_epoch(3, 2), EpochJudgement::Fenced);
        assert_eq!(judge_epoch(3, 3), EpochJudgement::Current);
        assert_eq!(judge_epoch(3, 4), EpochJudgement::Unknown);
    }
}
