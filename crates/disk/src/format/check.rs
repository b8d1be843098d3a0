//! Checks that hold for one place only.

use elcache_core::value::Version;

use super::record::Kind;

/// What stands at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spot {
    /// The header of a log.
    Header = 0,
    /// A record.
    Record = 1,
    /// The footer of a log.
    Footer = 2,
    /// The head of an extent.
    Head = 3,
}

/// Seeds of the checks of a directory.
#[derive(Clone)]
pub(crate) struct Seeds([u8; 16]);

impl Seeds {
    /// From a directory's secret.
    pub(crate) fn new(secret: [u8; 16]) -> Self {
        Self(secret)
    }

    /// What a check begins with at this place: the same bytes anywhere else do not verify.
    pub(crate) fn seed(&self, segment: u32, spot: Spot, offset: u64) -> u32 {
        let mut place = [0; 29];
        place[..16].copy_from_slice(&self.0);
        place[16..20].copy_from_slice(&segment.to_le_bytes());
        place[20] = spot as u8;
        place[21..].copy_from_slice(&offset.to_le_bytes());
        crc32c::crc32c(&place)
    }
}

/// Sums of the blocks of one payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Summer(u32);

impl Summer {
    /// For the payload of this kind, name and version.
    pub(crate) fn new(kind: Kind, name: &[u8], version: Version) -> Self {
        let name = crc32c::crc32c_append(crc32c::crc32c(&[kind as u8]), name);
        let view = crc32c::crc32c_append(name, &version.view.to_le_bytes());
        Self(crc32c::crc32c_append(view, &version.sequence.to_le_bytes()))
    }

    /// What the sum of block `number` begins with.
    pub(crate) fn begin(self, number: u32) -> u32 {
        crc32c::crc32c_append(self.0, &number.to_le_bytes())
    }

    /// The sum of a block that lies in one piece.
    pub(crate) fn sum(self, number: u32, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.begin(number), bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_place_counts() {
        let seeds = Seeds::new([1; 16]);
        let all = [
            seeds.seed(1, Spot::Record, 8),
            seeds.seed(2, Spot::Record, 8),
            seeds.seed(1, Spot::Head, 8),
            seeds.seed(1, Spot::Record, 16),
            Seeds::new([2; 16]).seed(1, Spot::Record, 8),
        ];
        assert!((0..all.len()).all(|i| !all[i + 1..].contains(&all[i])));
    }

    #[test]
    fn a_sum_holds_for_one_block_of_one_payload() {
        let version = |sequence| Version { view: 0, sequence };
        let summer = Summer::new(Kind::Chunk, b"name", version(1));
        let sum = summer.sum(0, b"bytes");
        assert_ne!(sum, summer.sum(1, b"bytes"));
        assert_ne!(sum, Summer::new(Kind::Page, b"name", version(1)).sum(0, b"bytes"));
        assert_ne!(sum, Summer::new(Kind::Chunk, b"nbme", version(1)).sum(0, b"bytes"));
        assert_ne!(sum, Summer::new(Kind::Chunk, b"name", version(2)).sum(0, b"bytes"));
    }
}
