//! Whether this node should be sent requests.

use parking_lot::RwLock;

/// What `/health` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Not ready yet, because of this.
    Starting(Vec<String>),
    /// Everything works.
    Healthy,
    /// It serves, though these things are wrong.
    Degraded(Vec<String>),
    /// It finishes what is in flight and takes no more.
    Draining,
    /// It can serve nothing, because of this.
    Failed(Vec<String>),
}

impl State {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Starting(_) => "starting",
            Self::Healthy => "healthy",
            Self::Degraded(_) => "degraded",
            Self::Draining => "draining",
            Self::Failed(_) => "failed",
        }
    }

    /// Why it is not healthy.
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Starting(reasons) | Self::Degraded(reasons) | Self::Failed(reasons) => reasons,
            Self::Healthy | Self::Draining => &[],
        }
    }

    /// Whether it answers requests.
    pub fn serves(&self) -> bool {
        matches!(self, Self::Healthy | Self::Degraded(_))
    }
}

/// The node's health. It starts as [`State::Starting`].
#[derive(Debug)]
pub struct Health(RwLock<State>);

impl Default for Health {
    fn default() -> Self {
        Self(RwLock::new(State::Starting(Vec::new())))
    }
}

impl Health {
    /// From now on this.
    pub fn set(&self, state: State) {
        *self.0.write() = state;
    }

    /// As it is now.
    pub fn get(&self) -> State {
        self.0.read().clone()
    }
}
