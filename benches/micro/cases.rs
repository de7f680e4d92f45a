//! What is measured: named pieces of work, the same for time and for instructions.

use std::hint::black_box;

/// Sizes that batches have in practice: one small record, a lingering producer, a full request.
pub(crate) const SIZES: [(usize, &str); 3] =
    [(1 << 10, "1 KiB"), (16 << 10, "16 KiB"), (1 << 20, "1 MiB")];

/// From here on a unit is repeated less often.
const LARGE_BYTES: usize = 64 << 10;

/// What a unit of a case amounts to.
#[derive(Clone, Copy)]
pub(crate) enum Amount {
    /// It goes through that many bytes.
    Bytes(usize),
    /// It handles that many things.
    Elements(usize),
}

/// One piece of work.
pub(crate) struct Case {
    /// What it is about, then what a unit is.
    pub(crate) name: String,
    pub(crate) amount: Amount,
    /// Does it once.
    pub(crate) run: Box<dyn FnMut()>,
}

impl Case {
    /// How often it is done when instructions are counted.
    pub(crate) fn counted_units(&self) -> u64 {
        match self.amount {
            Amount::Bytes(bytes) if bytes >= LARGE_BYTES => 8,
            Amount::Elements(elements) if elements > 64 => 8,
            _ => 256,
        }
    }
}

/// All of them, in order.
#[derive(Default)]
pub(crate) struct Cases {
    pub(crate) all: Vec<Case>,
}

impl Cases {
    /// Adds a case. What `unit` gives back is kept from being optimised away, and dropped within.
    pub(crate) fn add<T>(
        &mut self,
        name: impl Into<String>,
        amount: Amount,
        mut unit: impl FnMut() -> T + 'static,
    ) {
        let name = name.into();
        assert!(
            self.all.iter().all(|case| case.name != name),
            "{name} is there twice"
        );
        let run = Box::new(move || drop(black_box(unit())));
        self.all.push(Case { name, amount, run });
    }
}

/// Text-like bytes, always the same: words of a small vocabulary, so that codecs find something.
pub(crate) fn text(size_bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = [
        "order ",
        "customer ",
        "paid ",
        "shipped ",
        "Berlin ",
        "Lima ",
        "EUR ",
        "note ",
    ];
    let mut text = Vec::with_capacity(size_bytes + 32);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while text.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.extend_from_slice(WORDS[(state % 8) as usize].as_bytes());
        text.extend_from_slice((state >> 44).to_string().as_bytes());
        text.push(b' ');
    }
    text.truncate(size_bytes);
    text
}
