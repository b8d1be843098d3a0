//! Segments: pairs of files, by number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::io::File;

/// A segment that can be read.
pub(crate) struct Segment {
    pub(crate) number: u32,
    pub(crate) log: Arc<File>,
    /// `None` where no extent was written.
    pub(crate) data: Option<Arc<File>>,
    /// What its files occupy, or may come to occupy while it is open.
    bytes: AtomicU64,
    /// What the data file has of that, once it is sealed.
    data_bytes: AtomicU64,
}

impl Segment {
    pub(crate) fn new(number: u32, log: Arc<File>, data: Option<Arc<File>>, bytes: u64) -> Arc<Self> {
        Arc::new(Self { number, log, data, bytes: AtomicU64::new(bytes), data_bytes: AtomicU64::new(0) })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// It is open, and its files may come to be so long.
    pub(crate) fn set_open(&self, bytes: u64) {
        self.data_bytes.store(0, Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// It is sealed, and its files are so long.
    pub(crate) fn set_sealed(&self, log_bytes: u64, data_bytes: u64) {
        self.bytes.store(log_bytes + data_bytes, Ordering::Relaxed);
        self.data_bytes.store(data_bytes, Ordering::Relaxed);
    }

    /// What can be given back of it before its turn, if it is sealed.
    pub(crate) fn data_bytes(&self) -> u64 {
        if self.data.is_some() { self.data_bytes.load(Ordering::Relaxed) } else { 0 }
    }

    /// The same one without its data file.
    pub(crate) fn without_data(&self) -> Arc<Self> {
        Self::new(self.number, Arc::clone(&self.log), None, self.bytes() - self.data_bytes())
    }
}

/// All segments.
#[derive(Default)]
pub(crate) struct Segments(RwLock<BTreeMap<u32, Arc<Segment>>>);

impl Segments {
    pub(crate) fn get(&self, number: u32) -> Option<Arc<Segment>> {
        self.0.read().get(&number).cloned()
    }

    pub(crate) fn insert(&self, segment: &Arc<Segment>) {
        self.0.write().insert(segment.number, Arc::clone(segment));
    }

    /// The one with the lowest number.
    pub(crate) fn lowest(&self) -> Option<Arc<Segment>> {
        self.0.read().first_key_value().map(|(_, segment)| Arc::clone(segment))
    }

    /// The first one from this number on.
    pub(crate) fn from(&self, number: u32) -> Option<Arc<Segment>> {
        self.0.read().range(number..).next().map(|(_, segment)| Arc::clone(segment))
    }

    /// What those from this number on occupy.
    pub(crate) fn bytes_from(&self, number: u32) -> u64 {
        self.0.read().range(number..).map(|(_, segment)| segment.bytes()).sum()
    }

    /// All of them but the lowest, which goes next.
    pub(crate) fn later(&self) -> Vec<Arc<Segment>> {
        self.0.read().values().skip(1).cloned().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.read().len()
    }

    pub(crate) fn remove(&self, number: u32) {
        self.0.write().remove(&number);
    }

    /// What all of them occupy.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.read().values().map(|segment| segment.bytes()).sum()
    }

    /// The lowest and the highest number.
    pub(crate) fn ends(&self) -> Option<(u32, u32)> {
        let segments = self.0.read();
        Some((*segments.first_key_value()?.0, *segments.last_key_value()?.0))
    }

    /// Whether a segment is in the half that will be freed sooner.
    pub(crate) fn is_old(&self, number: u32) -> bool {
        self.ends().is_none_or(|(lowest, highest)| number - lowest < (highest - lowest) / 2)
    }
}
