//! What is written of one chunk: a base, and layers on it of which the newest wins.

use elcache_core::digest::Digest;
use elcache_core::staging::Fragment;
use elcache_core::tier::Owner;

use super::runs::Runs;

/// A fragment, or the place of one that was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) serial: u64,
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// Its bytes are there no more. It goes on hiding what is under it, or is found there later: older bytes must not shine
    /// through, as if the newer had never been acknowledged.
    pub(crate) lost: bool,
}

impl Layer {
    /// The fragment of this chunk that it is.
    pub(crate) fn fragment(self, draft: Owner, chunk: u64) -> Fragment {
        Fragment { draft, chunk, serial: self.serial, from: self.from, to: self.to }
    }
}

/// What lies under the layers. It stays also when they hide all of it, until another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    /// Nothing that counts.
    Nothing,
    /// A whole chunk, which a record of its own says.
    Filled(Digest),
    /// A whole chunk, which its page's record says.
    InPage,
}

/// A chunk of which something is written, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The base's serial: what does not lie above it counts no more. It stays when the base is lost.
    pub(crate) floor: u64,
    /// By serial, rising. Each shows somewhere. Boxed for their size: 64 bytes a chunk, and there may be millions.
    pub(crate) layers: Box<[Layer]>,
    /// Bytes that are there.
    pub(crate) written: u32,
    /// Its place in its page.
    pub(crate) place: u16,
    pub(crate) base: Base,
}

/// A part of a chunk that is there, and the layer that it comes from; `None`: from the base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) from: u32,
    pub(crate) to: u32,
    pub(crate) layer: Option<Layer>,
}

/// What a chunk needs no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    Layer(Layer),
    Base(Digest),
}

impl Chunk {
    /// Puts a layer to its place in the order of serials.
    pub(crate) fn lay(&mut self, layer: Layer) {
        let mut layers = std::mem::take(&mut self.layers).into_vec();
        match layers.binary_search_by_key(&layer.serial, |layer| layer.serial) {
            Ok(at) => layers[at] = layer,
            Err(at) => layers.insert(at, layer),
        }
        self.layers = layers.into();
    }

    /// Replaces the base, and with it everything up to `serial`.
    pub(crate) fn rest_on(&mut self, base: Base, serial: u64, mut dropped: impl FnMut(Dropped)) {
        if let Base::Filled(old) = self.base {
            dropped(Dropped::Base(old));
        }
        (self.base, self.floor) = (base, serial);
    }

    /// Its page's record has it no more.
    pub(crate) fn leave_page(&mut self) {
        if self.base == Base::InPage {
            self.base = Base::Nothing;
        }
    }

    /// Brings it, after a change, into the one form that what it has been told comes to.
    pub(crate) fn settle(&mut self, len: u32, mut dropped: impl FnMut(Dropped)) {
        let mut layers = std::mem::take(&mut self.layers).into_vec();
        let mut shows = vec![false; layers.len()];
        let counting = layers.partition_point(|layer| layer.serial <= self.floor);
        self.written = 0;
        paint(&layers[counting..], len, |from, to, at| {
            let layer = at.map(|at| counting + at);
            layer.into_iter().for_each(|at| shows[at] = true);
            let there = layer.map_or(self.base != Base::Nothing, |at| !layers[at].lost);
            self.written += if there { to - from } else { 0 };
        });
        let mut shows = shows.into_iter();
        layers.retain(|layer| {
            let stays = shows.next() == Some(true);
            if !stays && !layer.lost {
                dropped(Dropped::Layer(*layer));
            }
            stays
        });
        self.layers = layers.into();
    }

    /// What is there of it, in rising order.
    pub(crate) fn parts(&self, len: u32) -> Vec<Part> {
        let mut parts = Vec::new();
        paint(&self.layers, len, |from, to, at| {
            let layer = at.and_then(|at| self.layers.get(at)).copied();
            let there = layer.map_or(self.base != Base::Nothing, |layer| !layer.lost);
            if there {
                parts.push(Part { from, to, layer });
            }
        });
        parts.sort_unstable_by_key(|part| part.from);
        parts
    }

    /// The separate runs of bytes that are there.
    pub(crate) fn runs(&self, len: u32) -> Runs {
        let mut runs = Runs::default();
        self.parts(len).iter().for_each(|part| runs.add(part.from, part.to, |_, _| ()));
        runs
    }

    /// Whether layers lie on a whole chunk.
    pub(crate) fn is_overlaid(&self) -> bool {
        self.base != Base::Nothing && !self.layers.is_empty()
    }
}

/// Calls `part` with every part of a chunk and the place of the topmost layer there, or `None` where there is none.
fn paint(layers: &[Layer], len: u32, mut part: impl FnMut(u32, u32, Option<usize>)) {
    let mut hidden = Runs::default();
    for (at, layer) in layers.iter().enumerate().rev() {
        hidden.add(layer.from, layer.to, |from, to| part(from, to, Some(at)));
    }
    hidden.add(0, len, |from, to| part(from, to, None));
}
