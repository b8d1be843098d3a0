//! What a running server makes of a configuration that was loaded anew.

use super::schema::{Availability, Change, KEYS};
use super::sections::Config;

/// The outcome of comparing the running configuration with a new one.
#[derive(Clone, Debug, PartialEq)]
pub struct Reload {
    /// What runs from now on: the running configuration with the keys in `live` changed. Keys in `restart` keep
    /// their old value, so that the next reload names them again.
    pub config: Config,
    /// Keys that changed and take effect at once.
    pub live: Vec<&'static str>,
    /// Keys that changed and wait for a restart.
    pub restart: Vec<&'static str>,
}

impl Reload {
    /// Keys that are not available yet are left out: loading has said that they have no effect.
    pub fn compare(running: &Config, loaded: &Config) -> Self {
        let mut reload = Self { config: running.clone(), live: Vec::new(), restart: Vec::new() };
        let available = KEYS.iter().filter(|key| key.availability == Availability::Now);
        for key in available.filter(|key| (key.json)(running) != (key.json)(loaded)) {
            match key.change {
                Change::Live => {
                    (key.copy)(loaded, &mut reload.config);
                    reload.live.push(key.path);
                }
                Change::Restart => reload.restart.push(key.path),
            }
        }
        reload
    }
}
