//! Size classes: into how many slots a block is cut.
//!
//! Every size is a block divided by a whole number, rounded down to 16 bytes, so that a block has no rest worth
//! mentioning. Neighbours are at least 1/80 apart, and from a kilobyte up as close as whole divisors allow; on average
//! a slot wastes one or two per cent of a small record. The sizes 4, 8, 16 and 32 KiB are always there: payload
//! pieces use them, and their slots are aligned to pages.

use crate::pool::BLOCK_SIZE;

/// The smallest slot in bytes.
const MIN_SLOT: usize = 128;
/// The largest slot in bytes: two to a block.
pub(crate) const MAX_SLOT: usize = BLOCK_SIZE / 2;
const GRANULE: usize = 16;
const MAX_CLASSES: usize = 128;

/// Number of a size class, from the smallest up.
pub(crate) type Class = u8;

const TABLE: Table = Table::build();

struct Table {
    sizes: [u16; MAX_CLASSES],
    count: usize,
    /// For a length in granules, the smallest class that holds it.
    by_granules: [Class; MAX_SLOT / GRANULE + 1],
}

impl Table {
    const fn build() -> Self {
        let mut table = Self { sizes: [0; MAX_CLASSES], count: 0, by_granules: [0; MAX_SLOT / GRANULE + 1] };
        let mut slots = BLOCK_SIZE / MIN_SLOT;
        let mut last = 0;
        while slots >= 2 {
            let size = (BLOCK_SIZE / slots) & !(GRANULE - 1);
            if slots.is_power_of_two() || size >= last + last / 80 {
                table.sizes[table.count] = size as u16;
                table.count += 1;
                last = size;
            }
            slots -= 1;
        }
        let mut granules = 0;
        let mut class = 0;
        while granules < table.by_granules.len() {
            if granules * GRANULE > table.sizes[class] as usize {
                class += 1;
            }
            table.by_granules[granules] = class as Class;
            granules += 1;
        }
        table
    }
}

/// How many classes there are.
pub(crate) const COUNT: usize = TABLE.count;

/// The smallest class whose slots hold `len` bytes; `None` above [`MAX_SLOT`].
pub(crate) fn for_len(len: usize) -> Option<Class> {
    TABLE.by_granules.get(len.div_ceil(GRANULE)).copied()
}

/// The largest of the `stride` neighbouring classes to which this one belongs. The classes from 4 KiB up are far enough
/// apart as they are.
pub(crate) fn coarser(class: Class, stride: Class) -> Class {
    let coarse = (class / stride * stride + stride - 1).min(COUNT as Class - 1);
    if size(coarse) <= crate::PAGE_SIZE { coarse } else { class }
}

/// Bytes in a slot of this class.
pub(crate) fn size(class: Class) -> usize {
    usize::from(TABLE.sizes[usize::from(class)])
}

/// Slots in a block of this class.
pub(crate) fn slots(class: Class) -> usize {
    BLOCK_SIZE / size(class)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PAGE_SIZE;

    #[test]
    fn every_length_finds_the_smallest_class_that_holds_it() {
        for len in 0..=MAX_SLOT {
            let class = for_len(len).unwrap();
            assert!(size(class) >= len);
            assert!(class == 0 || size(class - 1) < len.next_multiple_of(GRANULE).max(1), "length {len}");
        }
        assert_eq!(for_len(MAX_SLOT + 1), None);
    }

    #[test]
    fn sizes_rise_waste_little_and_include_whole_pages() {
        for class in 1..COUNT as Class {
            assert!(size(class) > size(class - 1));
            assert!(slots(class) * size(class) > BLOCK_SIZE - size(class));
        }
        for pages in [1, 2, 4, 8] {
            let class = for_len(pages * PAGE_SIZE).unwrap();
            assert_eq!(size(class), pages * PAGE_SIZE);
        }
        const { assert!(COUNT < MAX_CLASSES) };
    }

    #[test]
    fn coarser_classes_hold_as_much_and_are_few() {
        for stride in [1, 2, 4] {
            let used: std::collections::BTreeSet<_> =
                (0..COUNT as Class).map(|class| coarser(class, stride)).collect();
            assert!(used.len() <= COUNT / usize::from(stride) + 20, "{} classes", used.len());
            assert!((0..COUNT as Class).all(|class| size(coarser(class, stride)) >= size(class)));
        }
    }

    #[test]
    fn a_small_record_wastes_two_per_cent_on_average() {
        let waste: usize = (1024..2048).map(|len| size(for_len(len).unwrap()) - len).sum();
        assert!(waste / 1024 <= 30, "{} bytes on average", waste / 1024);
    }
}
