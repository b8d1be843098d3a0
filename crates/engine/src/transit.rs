//! What a write has in memory on its way to where it belongs.

use std::time::Duration;

use elcache_core::payload::Buffer;
use elcache_core::tier::{Hold, Refusal, Tier, TierName};
use elcache_core::tree::CHUNK_SIZE;
use tokio::time::{sleep, timeout};

use crate::engine::{Engine, refused};
use crate::outcome::WriteError;

/// The first buffer of what comes without a length. Most of that is small.
pub(crate) const FIRST_BUFFER: u64 = 64 << 10;
/// Chunks that are on their way to a home that is not memory: as many as keep a disk busy.
pub(crate) const STAGING: usize = 3;
/// What is received, hashed and on its way there, at most.
pub(crate) const TRANSIT: u64 = (STAGING as u64 + 2) * CHUNK_SIZE;
/// How long to wait before asking again for memory that readers still hold.
const RETRY: Duration = Duration::from_millis(5);

/// Promises of room for one write, for as long as this lives.
#[derive(Default)]
pub(crate) struct Promises {
    holds: Vec<Hold>,
    /// Bytes that memory has promised room for, where it is not the home.
    transit: u64,
}

impl Promises {
    /// Has a tier promise room for so many bytes more.
    pub(crate) async fn admit(
        &mut self,
        engine: &Engine,
        tier: &dyn Tier,
        bytes: u64,
    ) -> Result<(), WriteError> {
        let answer = timeout(engine.config.admission_wait, tier.admit(bytes).get()).await;
        self.holds.push(answer.unwrap_or(Err(Refusal::Full)).map_err(refused)?);
        Ok(())
    }

    /// Has memory promise room for what of `bytes` is on its way to a home that is not memory.
    pub(crate) async fn cover_transit(
        &mut self,
        engine: &Engine,
        home: TierName,
        bytes: u64,
    ) -> Result<(), WriteError> {
        let transit = bytes.min(TRANSIT);
        if home == TierName::Memory || transit <= self.transit {
            return Ok(());
        }
        let memory = engine.tiers().first().ok_or(WriteError::DoesNotFit)?;
        let wanted = (transit - self.transit).min(memory.largest_admission());
        self.admit(engine, &**memory, wanted).await?;
        self.transit = transit;
        Ok(())
    }
}

/// A buffer, waiting a little where readers still hold what was evicted.
pub(crate) async fn room(engine: &Engine, len: u64) -> Result<Box<dyn Buffer>, WriteError> {
    let attempts = async {
        loop {
            match engine.buffers.buffer(len as usize) {
                None => sleep(RETRY).await,
                Some(buffer) => return buffer,
            }
        }
    };
    timeout(engine.config.room_wait, attempts).await.map_err(|_| WriteError::Busy)
}

/// Adds what one buffer holds to another, as far as there is room.
pub(crate) fn copy(from: &dyn Buffer, to: &mut dyn Buffer) {
    let mut at = 0;
    while !from.run(at).is_empty() && !to.space().is_empty() {
        at += put(to, from.run(at));
    }
}

/// Adds bytes to a buffer, as far as its next run has room for them; how many.
pub(crate) fn put(to: &mut dyn Buffer, bytes: &[u8]) -> usize {
    let count = bytes.len().min(to.space().len());
    to.space()[..count].copy_from_slice(&bytes[..count]);
    to.advance(count);
    count
}
