//! The bytes of a file, where they are not zero.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;

/// Sparse and cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Makes it so long; what is cut off is gone, what is added is zero.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.pages.split_off(&len.div_ceil(PAGE as u64));
            let within = (len % PAGE as u64) as usize;
            if let Some(page) = self.pages.get_mut(&(len / PAGE as u64)) {
                Arc::make_mut(page)[within..].fill(0);
            }
        }
        self.len = len;
    }

    /// Copies out as many bytes as there are.
    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> usize {
        let count = self.len.saturating_sub(offset).min(into.len() as u64) as usize;
        for (number, within, part) in pages(offset, count) {
            let start = (number * PAGE as u64 + within.start as u64 - offset) as usize;
            let into = &mut into[start..start + part];
            match self.pages.get(&number) {
                Some(page) => into.copy_from_slice(&page[within]),
                None => into.fill(0),
            }
        }
        count
    }

    /// Puts bytes at an offset; the file grows.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (number, within, part) in pages(offset, bytes.len()) {
            let start = (number * PAGE as u64 + within.start as u64 - offset) as usize;
            let page = self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within].copy_from_slice(&bytes[start..start + part]);
        }
        self.len = self.len.max(offset + bytes.len() as u64);
    }
}

/// The pages that a run touches: number, the part within the page, its length.
fn pages(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, usize)> {
    let end = offset + len as u64;
    let page = PAGE as u64;
    (offset / page..end.div_ceil(page)).filter_map(move |number| {
        let from = offset.max(number * page) - number * page;
        let to = end.min((number + 1) * page) - number * page;
        (from < to).then(|| (number, from as usize..to as usize, (to - from) as usize))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_what_a_vector_is(
            steps in proptest::collection::vec((any::<bool>(), 0_u64..20_000, 0_usize..9_000, any::<u8>()), 0..12),
        ) {
            let (mut content, mut model) = (Content::default(), Vec::new());
            for (is_write, at, len, byte) in steps {
                if is_write {
                    content.write(at, &vec![byte; len]);
                    model.resize(model.len().max(at as usize + len), 0);
                    model[at as usize..at as usize + len].fill(byte);
                } else {
                    content.set_len(at);
                    model.resize(at as usize, 0);
                }
                let mut read = vec![1; model.len() + 1];
                prop_assert_eq!(content.len(), model.len() as u64);
                prop_assert_eq!(content.read(0, &mut read), model.len());
                prop_assert_eq!(&read[..model.len()], &model[..]);
            }
        }
    }
}
