//! Disjoint ranges of the bytes of a chunk.

/// Ranges in rising order, of which none is empty or touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs(Vec<(u32, u32)>);

impl Runs {
    /// Adds the bytes `from..to`, and calls `fresh` with each part of them that was not there, in rising order.
    pub(crate) fn add(&mut self, from: u32, to: u32, mut fresh: impl FnMut(u32, u32)) {
        if from >= to {
            return;
        }
        let first = self.0.partition_point(|run| run.1 < from);
        let behind = self.0.partition_point(|run| run.0 <= to);
        let (mut start, mut at) = (from, from);
        for run in self.0.drain(first..behind) {
            if at < run.0 {
                fresh(at, run.0);
            }
            start = start.min(run.0);
            at = at.max(run.1);
        }
        if at < to {
            fresh(at, to);
        }
        self.0.insert(first, (start, at.max(to)));
    }

    pub(crate) fn as_slice(&self) -> &[(u32, u32)] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn runs_are_the_bytes_that_were_added(ranges in proptest::collection::vec((0_u32..64, 0_u32..20), 0..30)) {
            let (mut runs, mut bytes) = (Runs::default(), [false; 84]);
            for (from, len) in ranges {
                let mut fresh = Vec::new();
                runs.add(from, from + len, |from, to| fresh.extend(from..to));
                let news: Vec<u32> = (from..from + len).filter(|&byte| !bytes[byte as usize]).collect();
                prop_assert_eq!(fresh, news);
                (from..from + len).for_each(|byte| bytes[byte as usize] = true);
            }
            let listed: Vec<u32> = runs.as_slice().iter().flat_map(|&(from, to)| from..to).collect();
            prop_assert_eq!(listed, (0..84).filter(|&byte| bytes[byte as usize]).collect::<Vec<_>>());
            prop_assert!(runs.as_slice().iter().all(|run| run.0 < run.1));
            prop_assert!(runs.as_slice().windows(2).all(|pair| pair[0].1 < pair[1].0), "none touches the next");
        }
    }
}
