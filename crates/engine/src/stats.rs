//! The numbers of `/stats`, all tiers together and each by itself.

use elcache_core::tier::{TierName, Usage};

/// One set of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Look-ups that found everything.
    pub hits: u64,
    /// Look-ups that found nothing.
    pub misses: u64,
    /// Look-ups that found a part of what was asked for.
    pub partial_hits: u64,
    /// Bytes of values given out.
    pub bytes_read: u64,
    /// Bytes of values taken in.
    pub bytes_written: u64,
    /// Entries that left without being deleted: for want of room, or because their time was over.
    pub evictions: u64,
    /// How full it is.
    pub usage: Usage,
}

impl TierStats {
    /// Hits in a hundred look-ups, floored; 0 without look-ups.
    pub fn hit_rate_percent(&self) -> u64 {
        let lookups = self.hits + self.misses + self.partial_hits;
        (u128::from(self.hits) * 100).checked_div(u128::from(lookups)).unwrap_or(0) as u64
    }
}

/// The totals, and each tier's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// What a client sees: a miss is a key that no tier has.
    pub total: TierStats,
    /// By tier, fastest first.
    pub tiers: Vec<(TierName, TierStats)>,
}

impl Stats {
    /// Sums up the tiers.
    pub(crate) fn of(tiers: Vec<(TierName, TierStats)>) -> Self {
        let mut total = TierStats::default();
        for (_, tier) in &tiers {
            total.hits += tier.hits;
            total.partial_hits += tier.partial_hits;
            total.bytes_read += tier.bytes_read;
            total.bytes_written += tier.bytes_written;
            total.evictions += tier.evictions;
            total.usage.size_bytes += tier.usage.size_bytes;
            total.usage.capacity_bytes += tier.usage.capacity_bytes;
            total.usage.index_bytes += tier.usage.index_bytes;
            // The slower tiers hold what the faster do: the fullest tells how many there are.
            total.usage.entries = total.usage.entries.max(tier.usage.entries);
        }
        // A look-up goes on to the next tier after a miss: only the last one's are misses to the client.
        total.misses = tiers.last().map_or(0, |(_, tier)| tier.misses);
        Self { total, tiers }
    }
}
