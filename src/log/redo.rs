//! What the journal says about the bytes of one segment since the checkpoint.
//!
//! Some bytes travel in the journal; they are written to the segment again whatever its file holds.
//! Others were written straight to the file; of those the journal only names the batches.

use std::collections::BTreeMap;

use super::entry::named_batches;
use super::position::BytePosition;
use crate::runtime::breach::{Breach, is_planted};
use crate::runtime::buffer::BLOCK_BYTES;
use crate::wire::record_batch::HEADER_BYTES;

/// Bytes that the journal holds.
pub(super) struct Piece {
    pub(super) position: BytePosition,
    pub(super) bytes: Vec<u8>,
}

impl Piece {
    fn end(&self) -> BytePosition {
        self.position + self.bytes.len() as u64
    }
}

/// The journal contradicts itself or the checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Contradiction {
    /// Bytes between the end and these are missing.
    #[error("there is a gap before byte {0}")]
    Gap(BytePosition),
    /// A repeated beginning of a block is not what it was.
    #[error("byte {0} is repeated differently")]
    Differs(BytePosition),
}

/// See the head of this file.
pub(super) struct Redo {
    /// Ascending, none touching another.
    pieces: Vec<Piece>,
    /// Everything below is known, in the journal or in the file.
    end: BytePosition,
    /// Batches that the journal does not hold whole.
    named: BTreeMap<BytePosition, [u8; HEADER_BYTES]>,
    /// What a planted breach forgot to drop.
    stale: Vec<Piece>,
}

impl Redo {
    /// A segment of which the checkpoint knows everything below `end`.
    pub(super) fn new(end: BytePosition) -> Redo {
        Redo {
            pieces: Vec::new(),
            end,
            named: BTreeMap::new(),
            stale: Vec::new(),
        }
    }

    /// Everything below is known.
    pub(super) fn end(&self) -> BytePosition {
        self.end
    }

    /// Takes bytes that the journal carries. They may repeat known ones: a block's beginning after
    /// a checkpoint, perhaps only in part, since the group with the rest may be lost.
    pub(super) fn append(
        &mut self,
        position: BytePosition,
        bytes: &[u8],
    ) -> Result<(), Contradiction> {
        if position > self.end {
            return Err(Contradiction::Gap(position));
        }
        match self.pieces.last_mut() {
            Some(last) if last.position <= position && position <= last.end() => {
                let from = (position - last.position) as usize;
                let repeated = bytes.len().min(last.bytes.len() - from);
                if last.bytes[from..from + repeated] != bytes[..repeated] {
                    return Err(Contradiction::Differs(position));
                }
                last.bytes.extend_from_slice(&bytes[repeated..]);
            }
            Some(last) if position < last.position => {
                return Err(Contradiction::Differs(position));
            }
            _ => self.pieces.push(Piece {
                position,
                bytes: bytes.to_vec(),
            }),
        }
        self.end = self.end.max(position + bytes.len() as u64);
        Ok(())
    }

    /// Takes bytes that were written to the file.
    pub(super) fn extent(
        &mut self,
        position: BytePosition,
        length: u64,
        batches: &[u8],
    ) -> Result<(), Contradiction> {
        if position != self.end {
            return Err(Contradiction::Gap(position));
        }
        let named = named_batches(batches).map(|(position, header)| (position, *header));
        self.named.extend(named);
        // The block that it begins in was written whole, and is not to be written again: a power
        // cut in the middle of that would take the extent's part of it.
        self.drop_pieces(position - position % BLOCK_BYTES as u64);
        self.end = position + length;
        Ok(())
    }

    /// The header of the batch at `position`, if it is known.
    pub(super) fn header_at(&self, position: BytePosition) -> Option<&[u8; HEADER_BYTES]> {
        if let Some(header) = self.named.get(&position) {
            return Some(header);
        }
        let mut newest_first = self.pieces.iter().rev();
        let piece = newest_first.find(|piece| piece.position <= position)?;
        let from = (position - piece.position) as usize;
        piece.bytes.get(from..)?.first_chunk()
    }

    /// Forgets the header of a batch that was taken over.
    pub(super) fn forget_header(&mut self, position: BytePosition) {
        self.named.remove(&position);
    }

    /// Forgets everything from `position` on: the log was cut there.
    pub(super) fn cut(&mut self, position: BytePosition) {
        self.end = self.end.min(position);
        self.named.split_off(&position);
        self.drop_pieces(position);
    }

    fn drop_pieces(&mut self, from: BytePosition) {
        if is_planted(Breach::ReplayOverDirect) {
            let beyond = self.pieces.iter().filter(|piece| piece.end() > from);
            self.stale.extend(beyond.map(|piece| Piece {
                position: piece.position,
                bytes: piece.bytes.clone(),
            }));
        }
        self.pieces.retain(|piece| piece.position < from);
        if let Some(last) = self.pieces.last_mut() {
            let keep = (from - last.position) as usize;
            last.bytes.truncate(keep);
        }
    }

    /// Copies what the journal holds of the bytes from `position` on; how many there are.
    pub(super) fn copy_to(&self, position: BytePosition, into: &mut [u8]) -> usize {
        let mut newest_first = self.pieces.iter().rev();
        let Some(piece) = newest_first.find(|piece| piece.position <= position) else {
            return 0;
        };
        let from = (position - piece.position) as usize;
        let known = piece.bytes.get(from..).unwrap_or_default();
        let count = known.len().min(into.len());
        into[..count].copy_from_slice(&known[..count]);
        count
    }

    /// What is to be written to the file, below `end`.
    pub(super) fn into_pieces(self, end: BytePosition) -> Vec<Piece> {
        let mut pieces = self.pieces;
        pieces.extend(self.stale);
        for piece in &mut pieces {
            let keep = end.saturating_sub(piece.position) as usize;
            piece.bytes.truncate(keep);
        }
        pieces.retain(|piece| !piece.bytes.is_empty());
        pieces
    }
}

#[cfg(all(test, not(feature = "sim")))]
mod tests {
    use super::*;

    fn written(redo: Redo, end: u64) -> Vec<(u64, Vec<u8>)> {
        let pieces = redo.into_pieces(end).into_iter();
        pieces.map(|piece| (piece.position, piece.bytes)).collect()
    }

    #[test]
    fn repeats_must_agree_and_gaps_are_told() {
        let mut redo = Redo::new(10);
        assert_eq!(redo.append(11, b"x"), Err(Contradiction::Gap(11)));
        redo.append(8, b"abcd")
            .expect("repeats two bytes of the file");
        redo.append(12, b"ef").expect("follows");
        redo.append(10, b"cdefg").expect("repeats four");
        assert_eq!(redo.append(9, b"X"), Err(Contradiction::Differs(9)));
        assert_eq!(redo.append(4, b"X"), Err(Contradiction::Differs(4)));
        assert_eq!(
            (redo.end(), written(redo, 14)),
            (15, vec![(8, b"abcdef".to_vec())])
        );
    }

    #[test]
    fn extents_are_not_written_again_and_their_headers_are_known() {
        let mut redo = Redo::new(0);
        redo.append(0, &[1; 100]).expect("begins");
        let mut named = 100_u64.to_le_bytes().to_vec();
        named.extend([9; HEADER_BYTES]);
        assert_eq!(redo.extent(99, 10, &[]), Err(Contradiction::Gap(99)));
        redo.extent(100, 8000, &named).expect("follows");
        redo.append(8100, &[2; 70]).expect("follows");
        assert_eq!(redo.header_at(100), Some(&[9; HEADER_BYTES]));
        assert_eq!(redo.header_at(8105), Some(&[2; HEADER_BYTES]));
        assert_eq!(redo.header_at(8110), None, "not whole yet");
        assert_eq!(redo.header_at(200), None, "in the file, and no batch");
        // The first block was written with the extent.
        assert_eq!(written(redo, 8150), [(8100, vec![2; 50])]);
    }

    #[test]
    fn a_cut_takes_everything_behind_it() {
        let mut redo = Redo::new(0);
        redo.append(0, &[1; 100]).expect("begins");
        redo.extent(100, 4000, &[]).expect("follows");
        redo.append(4100, &[2; 10]).expect("follows");
        redo.cut(60);
        assert_eq!(redo.end(), 60);
        redo.append(0, &[1; 70])
            .expect("the block's beginning again");
        assert_eq!(written(redo, 70), [(0, vec![1; 70])]);
    }
}
