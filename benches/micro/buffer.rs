//! The buffers between socket and disk.

use std::hint::black_box;

use percolog::runtime::buffer::AppendBuf;

use crate::cases::{Amount, Cases, SIZES, text};

const CHUNK_BYTES: usize = 1 << 20;

pub(crate) fn add(cases: &mut Cases) {
    for (size_bytes, size) in SIZES {
        let bytes = text(size_bytes);
        let mut chunk = AppendBuf::allocate(CHUNK_BYTES);
        let name = format!("AppendBuf: append {size} to chunks of 1 MiB");
        cases.add(name, Amount::Bytes(size_bytes), move || {
            if chunk.remaining() < bytes.len() {
                chunk = AppendBuf::allocate(CHUNK_BYTES);
            }
            chunk.append(black_box(&bytes));
            chunk.len()
        });
    }
    let mut chunk = AppendBuf::allocate(CHUNK_BYTES);
    chunk.append(&text(CHUNK_BYTES));
    cases.add(
        "AppendBuf: slice of a chunk, a part of it, both dropped",
        Amount::Elements(1),
        move || {
            let slice = chunk.slice(black_box(4096..20_480));
            slice.part(0..1024)
        },
    );
}
