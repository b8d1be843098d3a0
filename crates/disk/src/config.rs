//! What the disk tier can be told.

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing in particular.
    None,
    /// The death of the process.
    Process,
    /// The loss of power.
    Power,
}

/// One directory.
#[derive(Clone, Debug, PartialEq)]
pub struct DiskConfig {
    /// What its files may occupy, in bytes.
    pub max_bytes: u64,
    /// What a segment's files may occupy together, in bytes; `None` follows from `max_bytes`.
    pub segment_bytes: Option<u64>,
    /// Past the page cache, for extents.
    pub direct: bool,
    /// Take room before writing.
    pub allocate: bool,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Above this share of `max_bytes` the oldest segments go in the background,
    pub high_watermark: f64,
    /// until no more than this share is occupied.
    pub low_watermark: f64,
    /// What is read again before its segment goes is written again as far as all writing comes to no more than so many times what
    /// was written for the first time. At least 1.
    pub write_amplification_max: f64,
    /// How long a request may wait for recovery, and for room.
    pub patience: std::time::Duration,
}

/// The least that a segment may occupy: a chunk with its head, the largest record, and what ends a log. Tests without whole chunks
/// have many small ones.
pub const MIN_SEGMENT: u64 = if cfg!(test) { 1 << 20 } else { 8 << 20 };
/// The most: a log's offsets are 32 bits of 8 bytes each.
pub const MAX_SEGMENT: u64 = 16 << 30;
/// Segments that a directory is divided into, where it is large enough.
const SEGMENTS: u64 = 128;

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            max_bytes: 100 << 30,
            segment_bytes: None,
            direct: true,
            allocate: true,
            durability: Durability::Process,
            high_watermark: 0.9,
            low_watermark: 0.8,
            write_amplification_max: 1.3,
            patience: std::time::Duration::from_secs(10),
        }
    }
}

impl DiskConfig {
    /// What a segment's files may occupy together.
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes.unwrap_or(self.max_bytes / SEGMENTS).clamp(MIN_SEGMENT, MAX_SEGMENT)
    }

    /// What is wrong with it, if anything.
    pub fn validate(&self) -> Result<(), String> {
        let segment = self.segment_bytes();
        if self.max_bytes < 4 * segment {
            return Err(format!(
                "{} bytes are too few for four segments of {segment}: give the disk more room or smaller segments",
                self.max_bytes
            ));
        }
        Ok(())
    }
}
