//! The disk tier of a node: which directory, which engine, and what the log says of it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use elcache_core::budget::Budget;
use elcache_core::clock::Clock;
use elcache_core::payload::Buffers;
use elcache_disk::io::{Engine, start};
use elcache_disk::{DirectoryError, DiskConfig, DiskParts, DiskTier, Durability as Survives, Lock, lock};

use crate::config::{Auto, Config, Directory, Durability, IoEngine, Size};
use crate::node::StartError;

/// What of `limits.first_byte_timeout` a request may spend on waiting for the disk.
const PATIENCE: f64 = 0.7;

/// Opens the disk tier; `None` when it is turned off.
pub(crate) async fn open(
    config: &Config,
    node_name: &str,
    budget: &Arc<Budget>,
    buffers: Arc<dyn Buffers>,
    clock: Arc<dyn Clock>,
) -> Result<Option<Arc<DiskTier>>, StartError> {
    let Some(directory) = config.disk.path.0.first() else { return Ok(None) };
    let max_bytes = directory.max_size.unwrap_or(config.disk.max_size).bytes();
    if max_bytes == 0 {
        return Ok(None);
    }
    if config.disk.path.0.len() > 1 {
        tracing::warn!(
            directory = %directory.path.display(),
            "disk.path: several directories are not available yet; the first one is used"
        );
    }
    let disk = disk_config(config, max_bytes);
    disk.validate().map_err(|wrong| StartError::new(format!("disk.max_size: {wrong}")))?;
    let (path, lock) = take(directory)?;
    let engine = match config.disk.io_engine {
        IoEngine::Auto => Engine::Auto,
        IoEngine::IoUring => Engine::Uring,
        IoEngine::Threads => Engine::Threads,
    };
    let started = start(engine, config.performance.max_concurrent_disk_ops as usize)
        .map_err(|error| StartError::new(format!("disk.io_engine: io_uring does not work here: {error}")))?;
    if let Some(why) = &started.fallback {
        tracing::warn!("{why}; threads serve instead");
    }
    let engine = started.device.name();
    let seeds = RandomState::new();
    let mut count = 0_u64;
    let parts = DiskParts {
        config: disk,
        device: started.device,
        path: path.clone(),
        lock: Some(lock),
        node_name: node_name.to_owned(),
        budget: Arc::clone(budget),
        buffers,
        clock,
        random: Box::new(move || {
            count += 1;
            seeds.hash_one(count)
        }),
    };
    let tier = DiskTier::open(parts).await.map_err(|error| unusable(&path, &error))?;
    let max_size = Size::new(max_bytes);
    tracing::info!(directory = %path.display(), %max_size, durability = ?config.disk.durability, engine, "the disk tier is open");
    Ok(Some(tier))
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
/// that somebody named is used or nothing is.
fn take(directory: &Directory) -> Result<(PathBuf, Lock), StartError> {
    let path = &directory.path;
    let error = match lock(path) {
        Ok(lock) => return Ok((path.clone(), lock)),
        Err(error) => error,
    };
    let is_default = Config::default().disk.path.0.first().is_some_and(|default| default.path == *path);
    let own = own_cache(|name| std::env::var_os(name));
    match (&error, own.filter(|_| is_default)) {
        (DirectoryError::Io(..), Some(own)) => {
            tracing::info!(
                directory = %own.display(),
                "{} cannot be used ({error}); values are kept in the user's own cache directory",
                path.display()
            );
            let lock = lock(&own).map_err(|error| unusable(&own, &error))?;
            Ok((own, lock))
        }
        _ => Err(unusable(path, &error)),
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
        let Err(error) = take(&named) else { panic!("it was taken") };
        let line = error.to_string();
        assert!(line.contains("disk.path /proc/nothing/here") && line.contains("--disk-size 0"), "{line}");
        assert!(!line.contains('\n'));
    }
}
