//! The disk tier of a node: which directories, which engine, and what the log says of it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::payload::Buffers;
use elcache_disk::io::{Device, Engine, start};
use elcache_disk::{
    Access, DirectoryError, DirectoryParts, DiskConfig, Disks, DisksError, DisksParts,
    Durability as Survives, lock,
};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Auto, Config, Directory, Durability, IoEngine, Size};
use crate::node::StartError;

/// What of `limits.first_byte_timeout` a request may spend on waiting for the disk.
const PATIENCE: f64 = 0.7;

/// Threads for calls that block, for each directory.
const THREADS: usize = 8;

/// The disk tier, and the threads on which it blocks.
pub(crate) struct DiskTier {
    pub(crate) disks: Arc<Disks>,
    pool: Option<Runtime>,
}

impl Drop for DiskTier {
    fn drop(&mut self) {
        // What a broken disk never answers is not waited for.
        self.pool.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// Opens the disk tier; `None` when it is turned off.
pub(crate) async fn open(
    config: &Config,
    node_name: &str,
    budget: &Arc<Budget>,
    buffers: Arc<dyn Buffers>,
    clock: Arc<dyn Clock>,
) -> Result<Option<DiskTier>, StartError> {
    let size = |directory: &Directory| directory.max_size.unwrap_or(config.disk.max_size).bytes();
    let used: Vec<_> = config.disk.path.0.iter().filter(|directory| size(directory) > 0).collect();
    if used.is_empty() {
        return Ok(None);
    }
    let mut directories = Vec::new();
    for directory in &used {
        let disk = disk_config(config, size(directory));
        disk.validate().map_err(|wrong| StartError::new(format!("disk.max_size: {wrong}")))?;
        let (path, access) = take(directory, used.len() > 1)?;
        directories.push(DirectoryParts { config: disk, device: engine(config, used.len())?, path, access });
    }
    let pool = Builder::new_current_thread()
        .max_blocking_threads(THREADS * used.len())
        .thread_name("elcached-disk")
        .build()
        .map_err(|error| StartError::new(format!("the threads of the disk cannot be started: {error}")))?;
    let opened: Vec<_> = directories
        .iter()
        .map(|parts| (parts.path.clone(), parts.config.max_bytes, parts.device.name()))
        .collect();
    let seeds = RandomState::new();
    let mut count = 0_u64;
    let parts = DisksParts {
        directories,
        write_rate_max: config.disk.write_rate_max.map(Size::bytes),
        pool: pool.handle().clone(),
        node_name: node_name.to_owned(),
        budget: Arc::clone(budget),
        buffers,
        clock,
        random: Box::new(move || {
            count += 1;
            seeds.hash_one(count)
        }),
    };
    let disks = match Disks::open(parts).await {
        Ok(disks) => disks,
        Err(DisksError { path, error }) => {
            pool.shutdown_background();
            return Err(unusable(&path, &error));
        }
    };
    for (path, max_bytes, engine) in opened {
        let max_size = Size::new(max_bytes);
        tracing::info!(directory = %path.display(), %max_size, durability = ?config.disk.durability, engine, "the disk tier is open");
    }
    Ok(Some(DiskTier { disks, pool: Some(pool) }))
}

/// What drives one directory. Each has one of its own, so that one that hangs does not hold up the others.
fn engine(config: &Config, directories: usize) -> Result<Arc<dyn Device>, StartError> {
    let choice = match config.disk.io_engine {
        IoEngine::Auto => Engine::Auto,
        IoEngine::IoUring => Engine::Uring,
        IoEngine::Threads => Engine::Threads,
    };
    let operations = config.performance.max_concurrent_disk_ops as usize / directories;
    let started = start(choice, operations.max(1))
        .map_err(|error| StartError::new(format!("disk.io_engine: io_uring does not work here: {error}")))?;
    if let Some(why) = &started.fallback {
        tracing::warn!("{why}; threads serve instead");
    }
    Ok(started.device)
}

fn disk_config(config: &Config, max_bytes: u64) -> DiskConfig {
    let limit: Duration = config.limits.first_byte_timeout;
    DiskConfig {
        max_bytes,
        segment_bytes: match config.disk.segment_size {
            Auto::Auto => None,
            Auto::Fixed(size) => Some(size.bytes()),
        },
        direct: config.disk.use_direct_io,
        allocate: config.disk.use_fallocate,
        durability: match config.disk.durability {
            Durability::None => Survives::None,
            Durability::Process => Survives::Process,
            Durability::Power => Survives::Power,
        },
        high_watermark: config.disk.high_watermark,
        low_watermark: config.disk.low_watermark,
        write_amplification_max: config.disk.write_amplification_max,
        patience: limit.mul_f64(PATIENCE),
    }
}

/// Takes a directory for this process. Where the default one cannot be written, the user's own cache directory serves; one
/// that somebody named is used or nothing is, unless it is one of `several`: the others serve then.
fn take(directory: &Directory, several: bool) -> Result<(PathBuf, Access), StartError> {
    let path = &directory.path;
    let error = match lock(path) {
        Ok(lock) => return Ok((path.clone(), Access::Locked(lock))),
        Err(error) => error,
    };
    let is_default = Config::default().disk.path.0.first().is_some_and(|default| default.path == *path);
    let own = own_cache(|name| std::env::var_os(name));
    match (error, own.filter(|_| is_default && !several)) {
        (error @ DirectoryError::Io(..), _) if several => Ok((path.clone(), Access::Out(error))),
        (error @ DirectoryError::Io(..), Some(own)) => {
            tracing::info!(
                directory = %own.display(),
                "{} cannot be used ({error}); values are kept in the user's own cache directory",
                path.display()
            );
            let lock = lock(&own).map_err(|error| unusable(&own, &error))?;
            Ok((own, Access::Locked(lock)))
        }
        (error, _) => Err(unusable(path, &error)),
    }
}

/// `$XDG_CACHE_HOME/elcache`, or `~/.cache/elcache`.
fn own_cache(variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Option<PathBuf> {
    // The specification says that relative paths there are to be ignored.
    let absolute = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("elcache"))
}

fn unusable(path: &Path, error: &DirectoryError) -> StartError {
    StartError::new(format!(
        "disk.path {}: {error} (name another directory with --disk, or turn the disk off with --disk-size 0)",
        path.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_cache_directory_is_found() {
        let of = |pairs: &'static [(&str, &str)]| {
            own_cache(move |name| {
                pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(of(&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")]), Some(PathBuf::from("/x/elcache")));
        assert_eq!(of(&[("HOME", "/h")]), Some(PathBuf::from("/h/.cache/elcache")));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")]), Some(PathBuf::from("/h/.cache/elcache")));
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn a_named_directory_that_cannot_be_used_is_an_error_with_advice() {
        let named = Directory { path: PathBuf::from("/proc/nothing/here"), max_size: None };
        let Err(error) = take(&named, false) else { panic!("it was taken") };
        let line = error.to_string();
        assert!(line.contains("disk.path /proc/nothing/here") && line.contains("--disk-size 0"), "{line}");
        assert!(!line.contains('\n'));
        assert!(matches!(take(&named, true), Ok((_, Access::Out(DirectoryError::Io(..))))));
    }
}
