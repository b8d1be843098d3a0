//! The tier as a whole, on a simulated disk: what was acknowledged is found, whatever happens to the process, the power, the
//! disk.

mod basics;
mod disks;
mod disks_model;
mod faults;
mod flips;
mod golden;
mod model;
mod pages;
mod reclaim;
mod refused;
mod scrub;
mod sequences;
mod small;
mod staging;
mod staging_model;
pub(crate) mod support;
mod traces;
