//! How many connections there are, in all and from each address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::app::App;
use crate::config::HttpConfig;

/// Counts connections.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place among them, until it is dropped.
pub(crate) struct Seat {
    app: Arc<App>,
    address: IpAddr,
}

impl Connections {
    fn enter(&self, address: IpAddr, config: &HttpConfig) -> bool {
        let mut counts = self.0.lock();
        let from_address = counts.by_address.get(&address).copied().unwrap_or(0);
        if counts.total >= config.connections || from_address >= config.connections_per_address {
            return false;
        }
        counts.total += 1;
        counts.by_address.insert(address, from_address + 1);
        true
    }

    fn leave(&self, address: IpAddr) {
        let mut counts = self.0.lock();
        counts.total -= 1;
        match counts.by_address.get_mut(&address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.by_address.remove(&address);
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
        app.connections.enter(address, &config).then(|| {
            app.metrics.connections(elcache_metrics::Transport::Http).inc();
            Self { app: Arc::clone(app), address }
        })
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
        assert!(connections.enter(a, &config) && connections.enter(a, &config));
        assert!(!connections.enter(a, &config));
        assert!(connections.enter(b, &config) && !connections.enter(c, &config));
        connections.leave(a);
        assert!(connections.enter(c, &config));
        [a, b, c].into_iter().for_each(|address| connections.leave(address));
        assert!(connections.0.lock().by_address.is_empty());
    }
}
