//! Names that somebody holds on to, with how many do.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::index::entry::Name;

/// Names, and how often each is held.
#[derive(Default)]
pub(crate) struct Tally(Mutex<HashMap<Name, u32>>);

impl Tally {
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    pub(crate) fn has(&self, name: &Name) -> bool {
        self.0.lock().contains_key(name)
    }

    /// Holds a name until the result is dropped.
    pub(crate) fn hold(self: &Arc<Self>, name: &Name) -> Held {
        *self.0.lock().entry(*name).or_default() += 1;
        Held { tally: Arc::clone(self), name: *name }
    }
}

/// A name that is held.
pub(crate) struct Held {
    tally: Arc<Tally>,
    name: Name,
}

impl Held {
    pub(crate) fn name(&self) -> &Name {
        &self.name
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut names = self.tally.0.lock();
        if let Some(count) = names.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                names.remove(&self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_held_until_all_have_let_go() {
        let tally = Arc::new(Tally::default());
        let first = tally.hold(&[1; 16]);
        let second = tally.hold(&[1; 16]);
        drop(first);
        assert!(tally.has(&[1; 16]) && !tally.has(&[2; 16]));
        drop(second);
        assert!(!tally.has(&[1; 16]) && tally.is_empty());
    }
}
