//! Heads and sums of large payloads.

use bytes::{Buf, BufMut, Bytes};
use elcache_core::digest::Digest;
use elcache_core::payload::Payload;
use elcache_core::value::Metadata;

use super::check::Summer;
use super::record::{self, Kind, Plain};
use super::{BLOCK, Damaged, Seeds, Spot, take, take_array};

/// Bytes before the record in a head.
const FIXED: usize = 16;
/// The most blocks in a head: the longest name, the longest headers, and a full chunk's values and sums.
pub(crate) const MAX_HEAD_BLOCKS: u32 = 24;

/// The head of an extent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) name: Bytes,
    pub(crate) meta: Metadata,
    /// Bytes of the payload.
    pub(crate) len: u32,
    /// Chaining values of the payload's subtrees; none when there is only one.
    pub(crate) subtrees: Vec<Digest>,
    /// One for each block of the payload.
    pub(crate) sums: Vec<u32>,
}

/// Blocks of the head of a payload of `len` bytes.
pub(crate) fn head_blocks(name: &[u8], meta: &Metadata, len: u32) -> u32 {
    let subtrees = (len as usize).div_ceil(elcache_core::tree::SUBTREE_SIZE);
    let subtrees = if subtrees > 1 { subtrees * 32 } else { 0 };
    let sums = (len as usize).div_ceil(BLOCK) * 4;
    (FIXED + record::plain_len(name, meta) + subtrees + sums).div_ceil(BLOCK) as u32
}

impl Head {
    /// The head's blocks, to stand at `offset` of a data file.
    pub(crate) fn encode(&self, seeds: &Seeds, segment: u32, offset: u64) -> Vec<u8> {
        let blocks = head_blocks(&self.name, &self.meta, self.len);
        let mut out = Vec::with_capacity(blocks as usize * BLOCK);
        out.put_u32_le(0);
        out.put_u32_le(blocks);
        out.put_u32_le(self.len);
        out.put_u32_le(record::plain_len(&self.name, &self.meta) as u32);
        record::encode_plain(&mut out, self.kind, &self.name, &self.meta, self.len, 0, None);
        self.subtrees.iter().for_each(|subtree| out.put_slice(&subtree.0));
        out.resize(blocks as usize * BLOCK - self.sums.len() * 4, 0);
        self.sums.iter().for_each(|sum| out.put_u32_le(*sum));
        let check = crc32c::crc32c_append(seeds.seed(segment, Spot::Head, offset), &out[4..]);
        out[..4].copy_from_slice(&check.to_le_bytes());
        out
    }

    /// Reads the head at `offset` of a data file. `bytes` begin there and may go on behind it.
    pub(crate) fn decode(bytes: &[u8], seeds: &Seeds, segment: u32, offset: u64) -> Result<Self, Damaged> {
        let mut rest = bytes;
        let check = rest.try_get_u32_le()?;
        let blocks = rest.try_get_u32_le()?;
        let head = Some(blocks).filter(|&blocks| blocks <= MAX_HEAD_BLOCKS).ok_or(Damaged)?;
        let head = bytes.get(..head as usize * BLOCK).filter(|head| !head.is_empty()).ok_or(Damaged)?;
        if crc32c::crc32c_append(seeds.seed(segment, Spot::Head, offset), &head[4..]) != check {
            return Err(Damaged);
        }
        let mut rest = &head[8..];
        let len = rest.try_get_u32_le()?;
        let record_len = rest.try_get_u32_le()? as usize;
        let (plain, _) = Plain::decode(&mut take(&mut rest, record_len)?)?;
        if plain.payload_len != len || head_blocks(plain.name, &plain.meta, len) != blocks {
            return Err(Damaged);
        }
        let count = (len as usize).div_ceil(elcache_core::tree::SUBTREE_SIZE);
        let subtrees = (0..if count > 1 { count } else { 0 }).map(|_| take_array(&mut rest).map(Digest));
        let subtrees = subtrees.collect::<Result<_, _>>()?;
        let sums_len = (len as usize).div_ceil(BLOCK) * 4;
        let sums = decode_sums(head.get(head.len() - sums_len..).ok_or(Damaged)?);
        let Plain { kind, name, meta, .. } = plain;
        Ok(Self { kind, name: Bytes::copy_from_slice(name), meta, len, subtrees, sums })
    }
}

/// The sums at the end of a head.
pub(crate) fn decode_sums(bytes: &[u8]) -> Vec<u32> {
    let (sums, _) = bytes.as_chunks();
    sums.iter().map(|sum| u32::from_le_bytes(*sum)).collect()
}

/// The sums of all blocks of a payload.
pub(crate) fn sums(payload: &Payload, summer: Summer) -> Vec<u32> {
    let mut sums = Vec::with_capacity(payload.len().div_ceil(BLOCK));
    let (mut sum, mut in_block) = (summer.begin(0), 0);
    for piece in payload.pieces() {
        let mut rest = &piece[..];
        while !rest.is_empty() {
            if in_block == BLOCK {
                sums.push(sum);
                (sum, in_block) = (summer.begin(sums.len() as u32), 0);
            }
            let (now, later) = rest.split_at(rest.len().min(BLOCK - in_block));
            sum = crc32c::crc32c_append(sum, now);
            in_block += now.len();
            rest = later;
        }
    }
    if in_block > 0 {
        sums.push(sum);
    }
    sums
}

/// Verifies runs of bytes that follow one another and begin with block `first` of a payload. Only the last may end within
/// a block.
pub(crate) fn verify<'a>(
    runs: impl Iterator<Item = &'a [u8]>,
    first: u32,
    expected: &[u32],
    summer: Summer,
) -> Result<(), Damaged> {
    let mut number = first;
    for run in runs {
        for block in run.chunks(BLOCK) {
            let expected = expected.get(number as usize).ok_or(Damaged)?;
            if summer.sum(number, block) != *expected {
                return Err(Damaged);
            }
            number += 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::record::tests::metadata;
    use elcache_core::value::Version;
    use proptest::prelude::*;

    fn head(meta: Metadata, name: Vec<u8>, payload: &Payload) -> Head {
        let subtrees = payload.len().div_ceil(elcache_core::tree::SUBTREE_SIZE);
        Head {
            kind: Kind::Value,
            len: payload.len() as u32,
            subtrees: vec![Digest([7; 32]); if subtrees > 1 { subtrees } else { 0 }],
            sums: sums(payload, Summer::new(Kind::Value, &name, meta.version)),
            name: name.into(),
            meta,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn a_head_comes_back_and_no_flipped_bit_goes_unnoticed(
            meta in metadata(), name in proptest::collection::vec(any::<u8>(), 0..5000), len in 1_usize..300_000, bit: proptest::sample::Index,
        ) {
            let seeds = Seeds::new([3; 16]);
            let head = head(meta, name, &Payload::from(Bytes::from(vec![1; len])));
            let bytes = head.encode(&seeds, 5, 8192);
            prop_assert_eq!(bytes.len(), head_blocks(&head.name, &head.meta, head.len) as usize * BLOCK);
            prop_assert_eq!(Head::decode(&bytes, &seeds, 5, 8192), Ok(head));
            prop_assert_eq!(Head::decode(&bytes, &seeds, 5, 4096), Err(Damaged));
            let bit = bit.index(bytes.len() * 8);
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(Head::decode(&flipped, &seeds, 5, 8192), Err(Damaged));
        }

        #[test]
        fn sums_do_not_depend_on_how_a_payload_is_cut(len in 1_usize..50_000, cuts in proptest::collection::vec(1_usize..9000, 0..8)) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 % 251) as u8).collect();
            let summer = Summer::new(Kind::Value, b"n", Version::default());
            let mut payload = Payload::new();
            let mut rest = Bytes::from(bytes.clone());
            for cut in cuts {
                payload.push(rest.split_to(cut.min(rest.len())));
            }
            payload.push(rest);
            let sums = sums(&payload, summer);
            prop_assert_eq!(sums.len(), len.div_ceil(BLOCK));
            prop_assert_eq!(verify([&bytes[..]].into_iter(), 0, &sums, summer), Ok(()));
            let from = sums.len() / 2;
            prop_assert_eq!(verify([&bytes[from * BLOCK..]].into_iter(), from as u32, &sums, summer), Ok(()));
            let mut wrong = bytes;
            wrong[len / 2] ^= 16;
            prop_assert_eq!(verify([&wrong[..]].into_iter(), 0, &sums, summer), Err(Damaged));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Head::decode(&bytes, &Seeds::new([3; 16]), 1, 0).is_err());
        }
    }

    #[test]
    fn the_sums_of_a_full_chunk_are_a_block_of_their_own() {
        let name = [1; 32];
        let meta = Metadata::new(4 << 20, Digest(name), Version::default(), 0);
        assert_eq!(head_blocks(&name, &meta, 4 << 20), 2);
        assert_eq!(head_blocks(&name, &meta, 64 << 10), 1);
        let longest = vec![1; elcache_core::key::MAX_KEY_LEN];
        assert!(head_blocks(&longest, &meta, 4 << 20) <= MAX_HEAD_BLOCKS);
    }
}
