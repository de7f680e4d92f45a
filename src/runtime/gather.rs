//! What leaves in one write: owned heads and slices of chunks, in order, none of them copied.

use super::buffer::Slice;

/// One contiguous run of bytes of a [`Gather`].
#[derive(Clone, Debug)]
pub enum Piece {
    /// Encoded for this answer alone.
    Owned(Vec<u8>),
    /// A view of bytes that live elsewhere.
    Shared(Slice),
}

impl Piece {
    /// The bytes themselves.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Piece::Owned(bytes) => bytes,
            Piece::Shared(slice) => slice,
        }
    }
}

/// Pieces that are sent one behind the other; empty pieces are never kept.
#[derive(Clone, Debug, Default)]
pub struct Gather {
    pieces: Vec<Piece>,
    size_bytes: usize,
}

impl Gather {
    /// A gather of one owned run.
    #[must_use]
    pub fn owned(bytes: Vec<u8>) -> Gather {
        let mut gather = Gather::default();
        gather.push_owned(bytes);
        gather
    }

    /// Appends bytes that belong to this gather alone.
    pub fn push_owned(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.size_bytes += bytes.len();
            self.pieces.push(Piece::Owned(bytes));
        }
    }

    /// Appends a view.
    pub fn push_slice(&mut self, slice: Slice) {
        if !slice.is_empty() {
            self.size_bytes += slice.len();
            self.pieces.push(Piece::Shared(slice));
        }
    }

    /// Appends everything of `other`.
    pub fn append(&mut self, other: Gather) {
        self.size_bytes += other.size_bytes;
        if self.pieces.is_empty() {
            self.pieces = other.pieces;
        } else {
            self.pieces.extend(other.pieces);
        }
    }

    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// Sum of the pieces.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.size_bytes == 0
    }

    /// All bytes in one copy, for tests and small answers.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.size_bytes);
        for piece in &self.pieces {
            all.extend_from_slice(piece.bytes());
        }
        all
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_counts_bytes_without_empty_pieces() {
        let mut gather = Gather::owned(b"head".to_vec());
        gather.push_slice(Slice::copied(b"slice"));
        gather.push_slice(Slice::default());
        gather.push_owned(Vec::new());
        let mut all = Gather::default();
        all.append(gather);
        all.append(Gather::owned(b"tail".to_vec()));
        assert_eq!(all.to_vec(), b"headslicetail");
        assert_eq!((all.size_bytes(), all.pieces().len()), (13, 3));
    }
}
