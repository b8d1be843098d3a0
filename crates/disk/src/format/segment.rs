//! Header and footer of a log.

use bytes::{Buf, BufMut};
use elcache_core::value::Version;

use super::{BLOCK, Damaged, FORMAT_VERSION, Seeds, Spot, close_block, open_block, take, take_array};

const HEADER: &[u8; 8] = b"ELCSEGM\0";
const FOOTER: &[u8; 8] = b"ELCSEAL\0";

/// The first block of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) segment: u32,
    pub(crate) directory: [u8; 16],
    pub(crate) node: [u8; 16],
    pub(crate) epoch: u64,
    pub(crate) opened_ms: u64,
    /// The lowest segment there was then.
    pub(crate) lowest: u32,
    /// The highest version of any record until then.
    pub(crate) highest: Version,
}

impl Header {
    pub(crate) fn encode(&self, seeds: &Seeds) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.put_slice(HEADER);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(self.segment);
        out.put_slice(&self.directory);
        out.put_slice(&self.node);
        out.put_u64_le(self.epoch);
        out.put_u64_le(self.opened_ms);
        out.put_u32_le(self.lowest);
        out.put_u32_le(0);
        out.put_u64_le(self.highest.view);
        out.put_u64_le(self.highest.sequence);
        close_block(out, seeds.seed(self.segment, Spot::Header, 0))
    }

    /// The header of this segment.
    pub(crate) fn decode(block: &[u8], segment: u32, seeds: &Seeds) -> Result<Self, Damaged> {
        let mut content = open_block(block, seeds.seed(segment, Spot::Header, 0))?;
        expect(&mut content, HEADER, segment)?;
        Ok(Self {
            segment,
            directory: take_array(&mut content)?,
            node: take_array(&mut content)?,
            epoch: content.try_get_u64_le()?,
            opened_ms: content.try_get_u64_le()?,
            lowest: content.try_get_u64_le()? as u32,
            highest: Version { view: content.try_get_u64_le()?, sequence: content.try_get_u64_le()? },
        })
    }
}

/// The last block of a sealed log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footer {
    pub(crate) segment: u32,
    /// Offset of the last index record; 0 is none.
    pub(crate) last_index: u64,
    /// Where this block begins.
    pub(crate) log_len: u64,
    pub(crate) data_len: u64,
    pub(crate) records: u64,
    /// The highest version of any record until then, in this segment or before.
    pub(crate) highest: Version,
    pub(crate) sealed_ms: u64,
}

impl Footer {
    pub(crate) fn encode(&self, seeds: &Seeds) -> Vec<u8> {
        let mut out = Vec::with_capacity(BLOCK);
        out.put_slice(FOOTER);
        out.put_u32_le(FORMAT_VERSION);
        out.put_u32_le(self.segment);
        out.put_u64_le(self.last_index);
        out.put_u64_le(self.log_len);
        out.put_u64_le(self.data_len);
        out.put_u64_le(self.records);
        out.put_u64_le(self.highest.view);
        out.put_u64_le(self.highest.sequence);
        out.put_u64_le(self.sealed_ms);
        close_block(out, seeds.seed(self.segment, Spot::Footer, self.log_len))
    }

    /// The footer that begins at `offset` of this segment's log.
    pub(crate) fn decode(block: &[u8], segment: u32, offset: u64, seeds: &Seeds) -> Result<Self, Damaged> {
        let mut content = open_block(block, seeds.seed(segment, Spot::Footer, offset))?;
        expect(&mut content, FOOTER, segment)?;
        let footer = Self {
            segment,
            last_index: content.try_get_u64_le()?,
            log_len: content.try_get_u64_le()?,
            data_len: content.try_get_u64_le()?,
            records: content.try_get_u64_le()?,
            highest: Version { view: content.try_get_u64_le()?, sequence: content.try_get_u64_le()? },
            sealed_ms: content.try_get_u64_le()?,
        };
        if footer.log_len == offset { Ok(footer) } else { Err(Damaged) }
    }
}

fn expect(content: &mut &[u8], magic: &[u8; 8], segment: u32) -> Result<(), Damaged> {
    let right = take(content, 8)? == magic
        && content.try_get_u32_le()? == FORMAT_VERSION
        && content.try_get_u32_le()? == segment;
    if right { Ok(()) } else { Err(Damaged) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_footer_come_back_in_their_place_only() {
        let seeds = Seeds::new([7; 16]);
        let highest = Version { view: 1, sequence: 2 };
        let header = Header {
            segment: 9,
            directory: [1; 16],
            node: [2; 16],
            epoch: 3,
            opened_ms: 4,
            lowest: 7,
            highest,
        };
        let block = header.encode(&seeds);
        assert_eq!(Header::decode(&block, 9, &seeds), Ok(header));
        assert_eq!(Header::decode(&block, 8, &seeds), Err(Damaged));
        let footer = Footer {
            segment: 9,
            last_index: 8192,
            log_len: 40960,
            data_len: 4096,
            records: 12,
            highest,
            sealed_ms: 5,
        };
        let block = footer.encode(&seeds);
        assert_eq!(Footer::decode(&block, 9, 40960, &seeds), Ok(footer));
        assert_eq!(Footer::decode(&block, 9, 45056, &seeds), Err(Damaged));
        assert_eq!(Footer::decode(&block[..100], 9, 40960, &seeds), Err(Damaged));
    }
}
