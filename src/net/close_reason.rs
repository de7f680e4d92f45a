//! Why connections end. Every end has exactly one reason, and every reason is counted.

/// Why a connection was closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum CloseReason {
    /// The peer closed it.
    PeerClosed,
    /// The peer or the network broke it.
    PeerReset,
    /// Nothing happened on it for `connections.max.idle.ms`.
    Idle,
    /// A frame announced more than may be sent.
    FrameTooLarge,
    /// A frame announced a negative length.
    FrameNegative,
    /// A frame announced less than a request header.
    FrameTooShort,
    /// A frame took too long to arrive, or arrived too slowly.
    BodyDeadline,
    /// The memory for requests was exhausted, and this one's body was the slowest.
    Memory,
    /// More connections from one address than allowed.
    LimitPerAddress,
    /// More connections than allowed.
    LimitTotal,
    /// The service asked for it.
    RefusedByService,
    /// The service could not make sense of a request.
    InvalidRequest,
    /// Authentication failed or expired.
    Authentication,
    /// The peer does not read its answers.
    WriteStalled,
    /// The broker stops.
    Shutdown,
}

/// How many reasons there are.
pub const CLOSE_REASONS: usize = ALL.len();

const ALL: [CloseReason; 15] = [
    CloseReason::PeerClosed,
    CloseReason::PeerReset,
    CloseReason::Idle,
    CloseReason::FrameTooLarge,
    CloseReason::FrameNegative,
    CloseReason::FrameTooShort,
    CloseReason::BodyDeadline,
    CloseReason::Memory,
    CloseReason::LimitPerAddress,
    CloseReason::LimitTotal,
    CloseReason::RefusedByService,
    CloseReason::InvalidRequest,
    CloseReason::Authentication,
    CloseReason::WriteStalled,
    CloseReason::Shutdown,
];

impl CloseReason {
    /// All of them, in the order of [`CloseReason::index`].
    #[must_use]
    pub fn all() -> [CloseReason; CLOSE_REASONS] {
        ALL
    }

    /// Place in per-reason tables.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Whether the service closed it, perhaps behind a last answer.
    #[must_use]
    pub fn is_by_service(self) -> bool {
        matches!(
            self,
            CloseReason::RefusedByService
                | CloseReason::InvalidRequest
                | CloseReason::Authentication
        )
    }

    /// The value of the metric's `reason` label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::PeerReset => "peer_reset",
            CloseReason::Idle => "idle",
            CloseReason::FrameTooLarge => "frame_too_large",
            CloseReason::FrameNegative => "frame_negative",
            CloseReason::FrameTooShort => "frame_too_short",
            CloseReason::BodyDeadline => "body_deadline",
            CloseReason::Memory => "memory",
            CloseReason::LimitPerAddress => "limit_per_address",
            CloseReason::LimitTotal => "limit_total",
            CloseReason::RefusedByService => "refused_by_service",
            CloseReason::InvalidRequest => "invalid_request",
            CloseReason::Authentication => "authentication",
            CloseReason::WriteStalled => "write_stalled",
            CloseReason::Shutdown => "shutdown",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_and_labels_are_distinct() {
        let mut labels = std::collections::BTreeSet::new();
        for (index, reason) in CloseReason::all().into_iter().enumerate() {
            assert_eq!(reason.index(), index);
            assert!(labels.insert(reason.label()));
        }
    }
}
