//! What the nodes of a quorum tell each other, as bytes.
//!
//! # Format (little-endian)
//! ```text
//!  0  kind 1 | flags 1 (1: refused, 2: a transfer) | term 8 | log term 8 | index 8 | commit 8
//! 34  commit term 8 | refused hint 8
//! 50  append:   count 4 | per entry: term 8, length 4, content (entry.rs)
//!     snapshot: index 8 | term 8 | members (member.rs) | the rest is the snapshot's data
//! ```
//! From whom and to whom is known to whoever carries it. What the library could send but has no use
//! for here (forwarded proposals, read indexes, priorities) has no form and is refused.

use raft::eraftpb::{Entry as RaftEntry, Message, MessageType, Snapshot};

use super::entry::Entry;
use super::member::Members;
use super::memory_log::conf_state;
use crate::log::bytes::{Fields, Malformed, put_count};

/// Terms are leader epochs of the metadata log.
const MOST_TERM: u64 = i32::MAX as u64 - 1;

/// Far beyond every log, and nothing overflows when entries are added to it.
const MOST_INDEX: u64 = 1 << 62;

const ENTRY_LEAST_BYTES: usize = 13;

const REFUSED: u8 = 1;
const TRANSFER: u8 = 2;

/// How the library marks a vote that a transfer of leadership asks for.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

const KINDS: [MessageType; 10] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// The bytes of a message.
///
/// # Panics
/// When the library sends what it has no reason to.
pub(super) fn encode(message: &Message) -> Vec<u8> {
    let kind = message.get_msg_type();
    let code = KINDS.iter().position(|known| *known == kind);
    let code = code.unwrap_or_else(|| panic!("{kind:?} has no form"));
    let mut flags = 0;
    if message.reject {
        flags |= REFUSED;
    }
    if message.context == TRANSFER_CONTEXT {
        flags |= TRANSFER;
    }
    let mut bytes = vec![code as u8, flags];
    for field in [
        message.term,
        message.log_term,
        message.index,
        message.commit,
        message.commit_term,
        message.reject_hint,
    ] {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    if kind == MessageType::MsgAppend {
        put_count(&mut bytes, message.entries.len());
        for entry in &message.entries {
            let content = Entry::from_raft(entry).content();
            bytes.extend_from_slice(&entry.term.to_le_bytes());
            put_count(&mut bytes, content.len());
            bytes.extend_from_slice(&content);
        }
    }
    if kind == MessageType::MsgSnapshot {
        let snapshot = message.get_snapshot();
        bytes.extend_from_slice(&snapshot.get_metadata().index.to_le_bytes());
        bytes.extend_from_slice(&snapshot.get_metadata().term.to_le_bytes());
        // Begins with the members.
        bytes.extend_from_slice(&snapshot.data);
    }
    bytes
}

/// Reads a message that `from` sent to `to` (ids of the library).
pub(super) fn decode(from: u64, to: u64, bytes: &[u8]) -> Result<Message, Malformed> {
    let mut fields = Fields::new(bytes);
    let kind = KINDS.get(usize::from(fields.u8()?)).ok_or(Malformed(0))?;
    let flags = fields.u8()?;
    if flags & !(REFUSED | TRANSFER) != 0 {
        return Err(Malformed(1));
    }
    let mut message = Message {
        from,
        to,
        reject: flags & REFUSED != 0,
        term: bounded(&mut fields, 1, MOST_TERM)?,
        log_term: bounded(&mut fields, 0, MOST_TERM)?,
        index: bounded(&mut fields, 0, MOST_INDEX)?,
        commit: bounded(&mut fields, 0, MOST_INDEX)?,
        commit_term: bounded(&mut fields, 0, MOST_TERM)?,
        reject_hint: bounded(&mut fields, 0, MOST_INDEX)?,
        ..Message::default()
    };
    message.set_msg_type(*kind);
    if flags & TRANSFER != 0 {
        message.context = TRANSFER_CONTEXT.into();
    }
    if *kind == MessageType::MsgAppend {
        let entries = entries(&mut fields, message.term, message.index)?;
        message.set_entries(entries.into());
    }
    if *kind == MessageType::MsgSnapshot {
        message.set_snapshot(snapshot(&mut fields, message.term)?);
    }
    match fields.remaining() {
        0 => Ok(message),
        _ => Err(Malformed(fields.position())),
    }
}

fn bounded(fields: &mut Fields<'_>, least: u64, most: u64) -> Result<u64, Malformed> {
    let at = fields.position();
    let value = fields.u64()?;
    match (least..=most).contains(&value) {
        true => Ok(value),
        false => Err(Malformed(at)),
    }
}

/// The entries behind `index`; their terms never fall and none is beyond the sender's.
fn entries(fields: &mut Fields<'_>, term: u64, index: u64) -> Result<Vec<RaftEntry>, Malformed> {
    let count = fields.count(ENTRY_LEAST_BYTES)?;
    let mut entries: Vec<RaftEntry> = Vec::with_capacity(count);
    let mut least = 1;
    for at in 1..=count as u64 {
        least = bounded(fields, least, term)?;
        let length = fields.count(1)?;
        let entry = Entry::from_content(index + at, least, fields.take(length)?)?;
        entries.push(entry.into_raft());
    }
    Ok(entries)
}

fn snapshot(fields: &mut Fields<'_>, term: u64) -> Result<Snapshot, Malformed> {
    let index = bounded(fields, 1, MOST_INDEX)?;
    let term = bounded(fields, 1, term)?;
    let data = fields.take(fields.remaining())?;
    let members = Members::decode(&mut Fields::new(data))?;
    if members.voters.is_empty() {
        return Err(Malformed(fields.position()));
    }
    let mut snapshot = Snapshot {
        data: data.to_vec().into(),
        ..Snapshot::default()
    };
    let metadata = snapshot.mut_metadata();
    metadata.index = index;
    metadata.term = term;
    metadata.set_conf_state(conf_state(&members));
    Ok(snapshot)
}

#[cfg(test)]
mod tests {
    use super::super::entry::EntryKind;
    use super::super::member::{MembershipChange, Voter};
    use super::*;
    use proptest::prelude::*;

    fn voter(node_id: i32) -> Voter {
        Voter {
            node_id,
            directory_id: None,
            host: "h".to_string(),
            port: 1,
        }
    }

    fn message(kind: MessageType) -> Message {
        let mut message = Message {
            from: 2,
            to: 3,
            term: 7,
            log_term: 5,
            index: 40,
            commit: 39,
            commit_term: 4,
            reject_hint: 12,
            reject: true,
            ..Message::default()
        };
        message.set_msg_type(kind);
        message
    }

    fn with_entries() -> Message {
        let entry = |index, kind, data| Entry {
            index,
            term: 6,
            kind,
            data,
        };
        let entries = vec![
            entry(41, EntryKind::Decision, vec![1, 2, 3]).into_raft(),
            entry(
                42,
                EntryKind::Membership,
                MembershipChange::Remove(1).encode(),
            )
            .into_raft(),
            entry(43, EntryKind::Decision, Vec::new()).into_raft(),
        ];
        let mut message = message(MessageType::MsgAppend);
        message.set_entries(entries.into());
        message
    }

    fn with_snapshot() -> Message {
        let members = Members::founded_by(vec![voter(1), voter(2)]);
        let mut data = Vec::new();
        members.encode(&mut data);
        data.extend_from_slice(b"topics");
        let mut snapshot = Snapshot {
            data: data.into(),
            ..Snapshot::default()
        };
        snapshot.mut_metadata().index = 30;
        snapshot.mut_metadata().term = 3;
        snapshot.mut_metadata().set_conf_state(conf_state(&members));
        let mut message = message(MessageType::MsgSnapshot);
        message.set_snapshot(snapshot);
        message
    }

    #[test]
    fn messages_of_every_kind_are_read_back() {
        for kind in KINDS {
            let mut plain = match kind {
                MessageType::MsgAppend => with_entries(),
                MessageType::MsgSnapshot => with_snapshot(),
                kind => message(kind),
            };
            assert_eq!(decode(2, 3, &encode(&plain)), Ok(plain.clone()));
            plain.context = TRANSFER_CONTEXT.into();
            plain.reject = false;
            assert_eq!(decode(2, 3, &encode(&plain)), Ok(plain));
        }
    }

    #[test]
    fn fields_out_of_bounds_are_refused() {
        let spoil: [fn(&mut Message); 6] = [
            |message| message.term = 0,
            |message| message.term = MOST_TERM + 1,
            |message| message.index = MOST_INDEX + 1,
            |message| message.commit = u64::MAX,
            |message| message.mut_entries()[0].term = 8,
            |message| message.mut_entries()[1].term = 5,
        ];
        for spoil in spoil {
            let mut message = with_entries();
            spoil(&mut message);
            assert!(decode(2, 3, &encode(&message)).is_err(), "{message:?}");
        }
        let mut longer = encode(&with_entries());
        longer.push(0);
        assert!(decode(2, 3, &longer).is_err());
        let mut nobody = with_snapshot();
        nobody.mut_snapshot().data = vec![0; 8].into();
        assert!(decode(2, 3, &encode(&nobody)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_read_back(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(message) = decode(2, 3, &bytes) {
                prop_assert_eq!(encode(&message), bytes);
            }
        }

        #[test]
        fn damaged_messages_are_refused_or_read_back(
            kind in 0..KINDS.len(),
            damage in prop::collection::vec((0_usize..200, any::<u8>()), 1..4),
            cut in 0_usize..200,
        ) {
            let plain = match KINDS[kind] {
                MessageType::MsgAppend => with_entries(),
                MessageType::MsgSnapshot => with_snapshot(),
                kind => message(kind),
            };
            let mut bytes = encode(&plain);
            for (at, value) in damage {
                let length = bytes.len();
                bytes[at % length] = value;
            }
            bytes.truncate(bytes.len().max(cut) - cut.min(20));
            if let Ok(message) = decode(2, 3, &bytes) {
                prop_assert_eq!(encode(&message), bytes);
            }
        }
    }
}
