//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use elcache_core::seats::{self, Seats};
use parking_lot::Mutex;

use crate::app::App;
use crate::config::HttpConfig;

/// Counts connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    /// Those of other transports are among them.
    pub(crate) all: Arc<Seats>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection's place among them, until it is dropped.
pub(crate) struct Seat {
    app: Arc<App>,
    address: IpAddr,
    _among_all: seats::Seat,
}

impl Connections {
    fn enter(&self, address: IpAddr, config: &HttpConfig) -> Option<seats::Seat> {
        let among_all = self.all.take(config.connections)?;
        let mut by_address = self.by_address.lock();
        let from_address = by_address.get(&address).copied().unwrap_or(0);
        if from_address >= config.connections_per_address {
            return None;
        }
        by_address.insert(address, from_address + 1);
        Some(among_all)
    }

    fn leave(&self, address: IpAddr) {
        let mut by_address = self.by_address.lock();
        match by_address.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                by_address.remove(&address);
            }
        }
    }
}

impl Seat {
    /// A place, or none when there are too many connections.
    pub(crate) fn take(app: &Arc<App>, address: IpAddr) -> Option<Self> {
        // An IPv4 client of a dual-stack socket is the same client.
        let address = address.to_canonical();
        let config = app.config.get();
        let among_all = app.connections.enter(address, &config)?;
        app.metrics.connections(elcache_metrics::Transport::Http).inc();
        Some(Self { app: Arc::clone(app), address, _among_all: among_all })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.app.metrics.connections(elcache_metrics::Transport::Http).dec();
        self.app.connections.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_limited_in_all_and_from_one_address() {
        let config = HttpConfig { connections: 3, connections_per_address: 2, ..HttpConfig::default() };
        let [a, b, c] = [1, 2, 3].map(|last| IpAddr::from([10, 0, 0, last]));
        let connections = Connections::default();
        let [first, second] = [a, a].map(|address| connections.enter(address, &config));
        assert!(first.is_some() && second.is_some() && connections.enter(a, &config).is_none());
        let third = connections.enter(b, &config);
        assert!(third.is_some() && connections.enter(c, &config).is_none());
        drop(first);
        connections.leave(a);
        // Whoever comes over another transport takes the place.
        let local = connections.all.take(config.connections);
        assert!(local.is_some() && connections.enter(c, &config).is_none());
        drop(local);
        assert!(connections.enter(c, &config).is_some());
        [a, b, c].into_iter().for_each(|address| connections.leave(address));
        assert!(connections.by_address.lock().is_empty());
    }
}
