//! Bytes to values and back: Kafka's wire protocol.
//!
//! * **Owns** the codec (its face is `codec`; `reader` and `writer` are its halves), the frames, the
//!   tables of APIs and error codes, and every message.
//! * **How many**: nothing here has an identity; readers and writers live as long as one frame.
//! * **Which core**: any; there is no state and no I/O.
//! * **May import**: nothing of ours.
//!
//! The messages are not written by hand: `messages/tables` holds one text file per family, and
//! `build/` turns them into Rust (see `messages`).
//!
//! What a version lacks is its default when decoded and is left out when encoded: Kafka throws for
//! such a field unless it is "ignorable", but a reply does not fail over what a client did not ask
//! for. A null that a version does not know is written as empty, text that an int16 cannot measure
//! is cut. Bytes behind a message are the caller's to judge (`Reader::expect_end`).
//!
//! *Architecture Invariant*: a length read from the wire never allocates by itself: it is checked
//! against the bytes that are left, and vectors grow with what was really decoded.

pub mod api_table;
pub mod batch_validation;
pub mod checksum;
pub mod codec;
pub mod compression;
pub mod error_code;
pub mod frame;
pub mod message;
pub mod messages;
mod reader;
pub mod record;
pub mod record_batch;
pub mod record_batch_builder;
pub mod transaction_marker;
mod writer;
mod xerial;
