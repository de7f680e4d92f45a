//! CRC-32C, the checksum of record batches and of everything of ours on disk.
//!
//! The only place that names the implementation, so that it can be swapped by measurement.

/// CRC-32C of `bytes`.
#[must_use]
pub fn crc32c(bytes: &[u8]) -> u32 {
    ::crc32c::crc32c(bytes)
}

/// CRC-32C over bytes that arrive in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc32c {
    state: u32,
}

impl Crc32c {
    /// A checksum of no bytes yet.
    #[must_use]
    pub fn new() -> Crc32c {
        Crc32c::default()
    }

    /// A checksum that goes on where one with this value stopped; also a way to seed it.
    #[must_use]
    pub fn resumed(value: u32) -> Crc32c {
        Crc32c { state: value }
    }

    /// Takes in `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.state = ::crc32c::crc32c_append(self.state, bytes);
    }

    /// The checksum of all bytes so far.
    #[must_use]
    pub fn value(self) -> u32 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_the_published_check_value_in_one_piece_and_in_many() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        let mut pieces = Crc32c::new();
        for byte in b"123456789" {
            pieces.update(&[*byte]);
        }
        assert_eq!(pieces.value(), 0xE306_9283);
        let mut resumed = Crc32c::resumed(crc32c(b"12345"));
        resumed.update(b"6789");
        assert_eq!(resumed.value(), 0xE306_9283);
    }
}
