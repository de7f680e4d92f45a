//! The sparse index of a segment, as full as it gets.

use std::hint::black_box;

use percolog::log::index::{MOST_ENTRIES, SparseIndex};
use percolog::log::position::{Offset, SegmentId};

use crate::cases::{Amount, Cases};

/// As many as fit before the index thins out.
const ENTRIES: i64 = MOST_ENTRIES as i64 - 1;
const BATCH_BYTES: u64 = 16 << 10;
const BATCH_RECORDS: i64 = 16;
const BASE: i64 = 1 << 40;
/// Prime, so that look-ups wander over the whole index.
const STRIDE: i64 = 40_503;

fn full() -> SparseIndex {
    let mut index = SparseIndex::new(Offset(BASE), BATCH_BYTES, MOST_ENTRIES);
    for batch in 0..=ENTRIES {
        let offset = Offset(BASE + batch * BATCH_RECORDS);
        index.note(offset, batch as u64 * BATCH_BYTES, batch * 10);
    }
    assert_eq!(index.entries().len(), ENTRIES as usize);
    index
}

pub(crate) fn add(cases: &mut Cases) {
    let (index, mut at) = (full(), 0);
    let name = "index: look up an offset among 4,095 entries";
    cases.add(name, Amount::Elements(1), move || {
        at = (at + STRIDE) % (ENTRIES * BATCH_RECORDS);
        index.position_of(black_box(Offset(BASE + at)))
    });
    let (index, mut at) = (full(), 0);
    let name = "index: look up a timestamp among 4,095 entries";
    cases.add(name, Amount::Elements(1), move || {
        at = (at + STRIDE) % (ENTRIES * 10);
        index.position_of_timestamp(black_box(at))
    });
    cases.add(
        "index: note 4,095 batches",
        Amount::Elements(ENTRIES as usize),
        full,
    );
    let bytes = full().to_file(SegmentId(5), 1 << 30);
    cases.add(
        "index: read a file of 4,095 entries",
        Amount::Elements(ENTRIES as usize),
        move || SparseIndex::from_file(black_box(&bytes), SegmentId(5), 1 << 30, Offset(BASE)),
    );
}
