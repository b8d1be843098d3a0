//! The tier's memory, for clients on the same machine who read in it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use elcache_core::shared::{RecordId, SharedMemory, Watched};

use crate::shard::Shard;
use crate::tier::MemoryTier;

impl MemoryTier {
    /// The shard of a record, and its number there. The records of a store are numbered in the order of its shards.
    fn shard_of(&self, record: RecordId) -> Option<(&Shard, u32)> {
        let shard = self.store.shard_at(usize::try_from(record.0 >> 32).ok()?)?;
        Some((shard, record.0 as u32))
    }
}

impl SharedMemory for MemoryTier {
    fn watch_file(&self) -> io::Result<OwnedFd> {
        self.store.pool().watch_file()
    }

    fn region_file(&self, region: u32) -> Option<Arc<OwnedFd>> {
        self.store.pool().region_file(region)
    }

    fn watch(&self, record: RecordId) -> Option<Watched> {
        let (shard, number) = self.shard_of(record)?;
        shard.watch(number)
    }

    fn note_use(&self, record: RecordId) {
        if let Some((shard, number)) = self.shard_of(record) {
            shard.note_use(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use elcache_core::budget::Budget;
    use elcache_core::clock::SystemClock;
    use elcache_core::digest::Digest;
    use elcache_core::key::Key;
    use elcache_core::payload::Payload;
    use elcache_core::tier::{Body, Lookup, NewBody, Tier};
    use elcache_core::value::{Metadata, Version};
    use std::sync::Arc;

    use crate::tier::MemoryConfig;

    fn tier() -> Arc<MemoryTier> {
        let budget = Budget::new(64 << 20);
        MemoryTier::new(MemoryConfig::default(), &budget, Arc::new(SystemClock), 7).unwrap()
    }

    async fn put(tier: &MemoryTier, key: &Key, bytes: &[u8]) {
        let meta = Metadata::new(bytes.len() as u64, Digest([0; 32]), Version::default(), 1);
        tier.commit(key, &meta, NewBody::Borrowed(bytes)).get().await.unwrap();
    }

    async fn payload(tier: &MemoryTier, key: &Key) -> Payload {
        match tier.root(key).get().await {
            Lookup::Hit(root) => match root.body {
                Body::Here(payload) => payload,
                _ => panic!("it is one record"),
            },
            _ => panic!("it is there"),
        }
    }

    /// Each of the ways in which a value stops being its key's.
    #[tokio::test]
    async fn a_value_that_is_replaced_or_removed_is_told() {
        let tier = tier();
        let key = Key::new("k").unwrap();
        put(&tier, &key, b"one").await;
        let one = payload(&tier, &key).await;
        let record = one.places().next().unwrap().1.unwrap().record;
        let watched = tier.watch(record).unwrap();
        put(&tier, &Key::new("other").unwrap(), b"beside it").await;
        assert_eq!(tier.watch(record), Some(watched));
        put(&tier, &key, b"two").await;
        assert_ne!(tier.watch(record), Some(watched), "it was replaced");
        let two = payload(&tier, &key).await;
        let record = two.places().next().unwrap().1.unwrap().record;
        let watched = tier.watch(record).unwrap();
        tier.remove(&key).get().await.unwrap();
        assert_ne!(tier.watch(record), Some(watched), "it was removed");
    }

    #[test]
    fn numbers_that_mean_nothing_do_no_harm() {
        let tier = tier();
        for record in [0, 1, u64::from(u32::MAX), 1 << 32, 9 << 32, u64::MAX].map(RecordId) {
            assert_eq!(tier.watch(record), None);
            tier.note_use(record);
        }
    }
}
