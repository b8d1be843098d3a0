//! The caches, each as its users get it by default, filled with the same keys and values.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use elcache_core::budget::Budget;
use elcache_core::digest::Digest;
use elcache_core::value::{Metadata, Version};
use elcache_memory::{Store, StoreConfig};

/// A key.
pub(crate) type Name = [u8; 24];

/// Bytes in a value.
pub(crate) const VALUE_LEN: usize = 64;
/// How many more entries the peers may hold than they are given, so that nothing is ever evicted.
const SLACK: usize = 2;

/// A cache that holds everything it is asked for.
pub(crate) trait Lookups: Sync + Sized {
    /// Holds these keys.
    fn filled(keys: &[Name]) -> io::Result<Self>;

    /// The first byte of a key's value, counted as a use.
    fn first_byte(&self, key: &Name) -> Option<u8>;
}

/// What is stored under a key: its first byte tells that the right value was read.
pub(crate) fn value_of(key: &Name) -> [u8; VALUE_LEN] {
    [key[23]; VALUE_LEN]
}

fn shared(key: &Name) -> Bytes {
    Bytes::copy_from_slice(&value_of(key))
}

/// The memory tier's store: values in arenas, found by bytes of any length.
pub(crate) struct ElCache(Store);

impl Lookups for ElCache {
    fn filled(keys: &[Name]) -> io::Result<Self> {
        let budget = Budget::new(64 << 20 | (keys.len() * 512) as u64);
        let config = StoreConfig { shards: None, capacity_bytes: None, seed: 7 };
        let store = Store::new(&config, Arc::clone(&budget))?;
        let meta = metadata();
        for key in keys {
            store.put_value(key, &meta, &value_of(key)).map_err(|_| io::ErrorKind::OutOfMemory)?;
        }
        Ok(Self(store))
    }

    fn first_byte(&self, key: &Name) -> Option<u8> {
        let record = self.0.get(key)?;
        let content = record.content();
        content.get(content.len() - VALUE_LEN).copied()
    }
}

fn metadata() -> Metadata {
    Metadata::new(VALUE_LEN as u64, Digest([0; 32]), Version { view: 0, sequence: 1 }, 1)
}

pub(crate) struct Moka(moka::sync::Cache<Name, Bytes>);

impl Lookups for Moka {
    fn filled(keys: &[Name]) -> io::Result<Self> {
        let cache = moka::sync::Cache::new((keys.len() * SLACK) as u64);
        keys.iter().for_each(|key| cache.insert(*key, shared(key)));
        cache.run_pending_tasks();
        Ok(Self(cache))
    }

    fn first_byte(&self, key: &Name) -> Option<u8> {
        self.0.get(key)?.first().copied()
    }
}

pub(crate) struct QuickCache(quick_cache::sync::Cache<Name, Bytes>);

impl Lookups for QuickCache {
    fn filled(keys: &[Name]) -> io::Result<Self> {
        let cache = quick_cache::sync::Cache::new(keys.len() * SLACK);
        keys.iter().for_each(|key| cache.insert(*key, shared(key)));
        Ok(Self(cache))
    }

    fn first_byte(&self, key: &Name) -> Option<u8> {
        self.0.get(key)?.first().copied()
    }
}

/// foyer's memory cache with its default eviction.
pub(crate) struct Foyer(foyer_memory::Cache<Name, Bytes>);

impl Lookups for Foyer {
    fn filled(keys: &[Name]) -> io::Result<Self> {
        Ok(Self(foyer(keys, foyer_memory::CacheBuilder::new(keys.len() * SLACK))))
    }

    fn first_byte(&self, key: &Name) -> Option<u8> {
        self.0.get(key)?.value().first().copied()
    }
}

/// foyer's memory cache with S3-FIFO, whose hits change nothing but a counter.
pub(crate) struct FoyerS3Fifo(foyer_memory::Cache<Name, Bytes>);

impl Lookups for FoyerS3Fifo {
    fn filled(keys: &[Name]) -> io::Result<Self> {
        let builder = foyer_memory::CacheBuilder::new(keys.len() * SLACK)
            .with_eviction_config(foyer_memory::S3FifoConfig::default());
        Ok(Self(foyer(keys, builder)))
    }

    fn first_byte(&self, key: &Name) -> Option<u8> {
        self.0.get(key)?.value().first().copied()
    }
}

fn foyer<S>(
    keys: &[Name],
    builder: foyer_memory::CacheBuilder<Name, Bytes, S>,
) -> foyer_memory::Cache<Name, Bytes, S>
where
    S: std::hash::BuildHasher + Send + Sync + 'static + std::fmt::Debug,
{
    let cache = builder.build();
    for key in keys {
        drop(cache.insert(*key, shared(key)));
    }
    cache
}
