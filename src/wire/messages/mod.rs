//! Every message of Kafka 4.3 that a client, a broker or a log can hold.
//!
//! * **Owns** the tables in `tables/`: one file per family (a request with its response, or the key
//!   and the value of a coordinator's record), one Rust module per file, named like it. `build/`
//!   turns them into a structure per structure; its `table.rs` documents the grammar.
//! * **How many**: values, one per use.
//! * **Which core**: any.
//! * **May import**: `codec`, `message` and `api_table`.
//!
//! Fields have the table's names in snake case. A structure has a lifetime only where something in
//! it borrows from the frame; `Default` gives Kafka's defaults, so a handler states only what it
//! means: `ProduceResponse { responses, ..Default::default() }`.
//!
//! *Architecture Invariant*: what Kafka's schemata say stands in the tables and nowhere else; no
//! message has code of its own.

include!(concat!(env!("OUT_DIR"), "/messages.rs"));
