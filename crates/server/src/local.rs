//! Where the Unix socket is.

use std::ffi::OsString;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elcache_core::budget::Budget;
use elcache_local::socket::BindError;
use elcache_local::{Bound, Local, Sharing};
use elcache_memory::MemoryTier;

use crate::config::{Config, SocketPath};
use crate::node::StartError;

/// Opens the socket; `None` when it is turned off. Where the default path cannot be used, the user's own directory for such things
/// serves, and if that cannot be either the node goes on without. One that somebody named is used or nothing is.
pub(crate) async fn open(path: &SocketPath) -> Result<Option<Bound>, StartError> {
    if path.is_off() {
        return Ok(None);
    }
    if *path != Config::default().network.unix_socket_path {
        let bound = Bound::open(&path.0).await;
        return bound.map(Some).map_err(|error| StartError::new(unusable(&path.0, &error)));
    }
    let own = own_socket(|name| std::env::var_os(name));
    Ok(open_default(&path.0, own.as_deref()).await)
}

async fn open_default(path: &Path, own: Option<&Path>) -> Option<Bound> {
    let error = match Bound::open_with_directory(path).await {
        Ok(bound) => return Some(bound),
        Err(error) => error,
    };
    let (BindError::System(..), Some(own)) = (&error, own) else {
        tracing::warn!("{}; the node goes on without it", unusable(path, &error));
        return None;
    };
    match Bound::open_with_directory(own).await {
        Ok(bound) => {
            tracing::info!(
                socket = %own.display(),
                "{} cannot be used ({error}); the socket is in the user's own directory",
                path.display()
            );
            Some(bound)
        }
        Err(second) => {
            tracing::warn!(
                "{}, and {}; the node goes on without it",
                unusable(path, &error),
                unusable(own, &second)
            );
            None
        }
    }
}

/// `$XDG_RUNTIME_DIR/elcache/elcache.sock`.
fn own_socket(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The specification says that relative paths there are to be ignored.
    let directory = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())?;
    Some(directory.join("elcache/elcache.sock"))
}

/// What the memory of sessions may take: where the budget is small, not so much that few clients leave nothing to all others.
pub(crate) fn session_room(budget: &Arc<Budget>, shm_size: u64) -> Arc<Budget> {
    Budget::part_of(budget, shm_size.min(budget.max_bytes() / 4))
}

/// Shares the memory tier with clients of the socket; where that cannot be they go on over the socket.
pub(crate) fn share(local: &Local, memory: &Arc<MemoryTier>, room: Arc<Budget>) {
    match memory.begin_life() {
        Ok(life) => local.share(Sharing::new(Arc::clone(memory) as _, life, room, processors())),
        Err(error) => tracing::warn!(%error, "no memory can be shared with local clients"),
    }
}

/// How many processors the machine has, whichever of them this process may use: its clients may use others.
fn processors() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let count = online.as_deref().and_then(count_of);
    count.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZeroUsize::get))
}

/// How many numbers there are in a list such as `0-3,6`.
fn count_of(list: &str) -> Option<usize> {
    let count = |run: &str| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        Some(last.parse::<usize>().ok()?.checked_sub(first.parse().ok()?)? + 1)
    };
    list.trim().split(',').map(count).sum()
}

fn unusable(path: &Path, error: &BindError) -> String {
    format!("network.unix_socket_path {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_own_socket_is_found() {
        let of = |value: Option<&'static str>| {
            own_socket(move |name| value.filter(|_| name == "XDG_RUNTIME_DIR").map(OsString::from))
        };
        assert_eq!(of(Some("/run/user/7")), Some(PathBuf::from("/run/user/7/elcache/elcache.sock")));
        assert_eq!(of(Some("run")), None);
        assert_eq!(of(None), None);
    }

    #[test]
    fn sessions_take_no_more_than_a_quarter() {
        let room = |bytes, shm_size| session_room(&Budget::new(bytes), shm_size).max_bytes();
        assert_eq!([room(64 << 20, 256 << 20), room(4 << 30, 256 << 20)], [16 << 20, 256 << 20]);
    }

    #[test]
    fn processors_are_counted() {
        assert_eq!(count_of("0-3,6\n"), Some(5));
        assert_eq!(count_of("0"), Some(1));
        assert_eq!([count_of(""), count_of("3-1"), count_of("a-b")], [None; 3]);
        assert!(processors() > 0);
    }

    #[tokio::test]
    async fn a_named_path_that_cannot_be_used_is_an_error_and_an_empty_one_is_no_socket() {
        assert!(matches!(open(&SocketPath::default()).await, Ok(None)));
        let named = SocketPath(PathBuf::from("/proc/nothing/here.sock"));
        let Err(error) = open(&named).await else { panic!("it was opened") };
        let line = error.to_string();
        assert!(line.contains("network.unix_socket_path /proc/nothing/here.sock"), "{line}");
        assert!(!line.contains('\n'));
    }

    #[tokio::test]
    async fn where_the_default_cannot_be_used_the_users_own_serves_or_none_does() {
        let scratch = std::env::temp_dir().join(format!("elcache-own-socket-{}", std::process::id()));
        let own = scratch.join("elcache/elcache.sock");
        let nowhere = Path::new("/proc/nothing/here.sock");
        let bound = open_default(nowhere, Some(&own)).await;
        assert_eq!(bound.as_ref().map(Bound::path), Some(&*own));
        assert!(open_default(nowhere, Some(Path::new("/proc/nothing/own.sock"))).await.is_none());
        assert!(open_default(nowhere, None).await.is_none());
        // One that another node serves is not looked for elsewhere.
        assert!(open_default(&own, Some(&scratch.join("other.sock"))).await.is_none());
        drop(bound);
        assert!(!own.exists());
        std::fs::remove_dir_all(scratch).unwrap();
    }
}
