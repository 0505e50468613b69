//! Which streams a segment may have: a split block Bloom filter, small enough to stay in memory for
//! every segment. It says "perhaps" of one absent stream in about a hundred.
//!
//! Source: Apache Parquet, "Split block Bloom filter". Keys are hashes already.

use crate::event::StreamKey;

/// A set of streams that never denies one of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamFilter {
    blocks: Vec<Block>,
}

type Block = [u32; 8];

impl StreamFilter {
    /// With room for `streams` streams, at `BITS_PER_STREAM` each.
    pub fn with_capacity(streams: usize) -> Self {
        let blocks = (streams * BITS_PER_STREAM).div_ceil(256).max(1);
        Self {
            blocks: vec![[0; 8]; blocks],
        }
    }

    /// Takes a stream in.
    pub fn insert(&mut self, key: StreamKey) {
        let block = self.block_of(key);
        for (word, bit) in self.blocks[block].iter_mut().zip(bits(key)) {
            *word |= bit;
        }
    }

    /// Whether the stream may have been taken in.
    pub fn may_contain(&self, key: StreamKey) -> bool {
        let block = &self.blocks[self.block_of(key)];
        block
            .iter()
            .zip(bits(key))
            .all(|(word, bit)| word & bit != 0)
    }

    /// Bytes as stored.
    pub fn bytes_len(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    /// Appends the filter as stored.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for word in self.blocks.iter().flatten() {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Reads what `encode` has written; `None` where it is no whole number of blocks.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
        let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
        let block = |bytes: &[u8; BLOCK_BYTES]| {
            let mut block = Block::default();
            for (place, bytes) in block.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *place = word(bytes);
            }
            block
        };
        let is_whole = rest.is_empty() && !blocks.is_empty();
        is_whole.then(|| Self {
            blocks: blocks.iter().map(block).collect(),
        })
    }

    fn block_of(&self, key: StreamKey) -> usize {
        // The upper half picks the block, without a division; the lower half picks the bits.
        (((key.0 >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

fn bits(key: StreamKey) -> impl Iterator<Item = u32> {
    let low = key.0 as u32;
    SALTS
        .iter()
        .map(move |salt| 1 << (low.wrapping_mul(*salt) >> 27))
}

/// Bits that each stream takes of the filter.
const BITS_PER_STREAM: usize = 10;
const BLOCK_BYTES: usize = 32;
const SALTS: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Hashes as a stream's are: SplitMix64 of a counter.
    fn key(n: u64) -> StreamKey {
        let mut mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        StreamKey(mixed ^ (mixed >> 31))
    }

    #[test]
    fn its_own_are_never_denied_and_few_others_are_taken_for_them() {
        for streams in [0, 1, 10, 10_000] {
            let mut filter = StreamFilter::with_capacity(streams as usize);
            (0..streams).for_each(|n| filter.insert(key(n)));
            let mut stored = Vec::new();
            filter.encode(&mut stored);
            assert_eq!(stored.len(), filter.bytes_len());
            let filter = StreamFilter::decode(&stored).unwrap();
            assert!((0..streams).all(|n| filter.may_contain(key(n))));
            let wrong = (0..10_000)
                .filter(|n| filter.may_contain(key(1_000_000 + n)))
                .count();
            assert!(wrong < 300, "{wrong} of 10,000 with {streams} streams");
        }
    }

    #[test]
    fn what_is_no_filter_is_not_read() {
        for length in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES + 1] {
            assert_eq!(StreamFilter::decode(&vec![0; length]), None);
        }
    }
}
