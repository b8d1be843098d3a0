//! Fills a server with the values of a workload and reads each of them back, one after the other.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::connection::{Connection, Wire};
use crate::error::Error;
use crate::protocol::Protocol;
use crate::workload::{Action, Request, Workload};

/// Writes all values of the workload.
pub fn fill(
    address: SocketAddr,
    protocol: Protocol,
    workload: &Workload,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    each(address, protocol, workload, interrupted, |wire, connection, number| {
        let value = workload.value(number);
        let put = Request { value, action: Action::Put { origin: value.origin() } };
        connection.begin(wire, put, Instant::now());
        connection.send_made_up(wire)
    })
}

/// Reads all values of the workload and compares every byte.
pub fn check(
    address: SocketAddr,
    protocol: Protocol,
    workload: &Workload,
    interrupted: &AtomicBool,
) -> Result<(), Error> {
    each(address, protocol, workload, interrupted, |wire, connection, number| {
        connection.begin(wire, Request::get(workload.value(number)), Instant::now());
        connection.send(wire)
    })
}

/// Does one exchange for each value, on one blocking connection.
fn each(
    address: SocketAddr,
    protocol: Protocol,
    workload: &Workload,
    interrupted: &AtomicBool,
    mut send: impl FnMut(&mut Wire, &mut Connection, u64) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut wire = Wire::new(protocol, true, 0);
    let mut connection = Connection::open(address, Request::get(workload.value(0)))?;
    for number in 0..workload.keys {
        if interrupted.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        send(&mut wire, &mut connection, number)?;
        while !connection.advance(&mut wire)? {}
    }
    Ok(())
}
