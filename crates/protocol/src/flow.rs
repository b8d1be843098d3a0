//! What is said of requests under way.

use crate::field::{Fields, Frame, tag};
use crate::header::{END, Kind};
use crate::request::Refusal;

/// Reads the fields of a `CREDIT`: how many more bytes may be sent.
pub fn parse_credit(fields: &[u8]) -> Result<u64, Refusal> {
    Fields::parse(fields)?.number(tag::WINDOW).ok_or(Refusal::invalid("CREDIT needs a WINDOW"))
}

/// Writes a `CREDIT`.
pub fn encode_credit(out: &mut Vec<u8>, id: u64, window: u64) {
    Frame::begin(out, Kind::CREDIT, 0, id).number(tag::WINDOW, window).end(0);
}

/// Writes a `CANCEL`.
pub fn encode_cancel(out: &mut Vec<u8>, id: u64) {
    Frame::begin(out, Kind::CANCEL, 0, id).end(0);
}

/// Of `PLACES`: the value stays its key's value for as long as the word of its first place does not change.
pub const CURRENT: u16 = 2;

/// Writes a `PLACES` frame.
pub fn encode_places(out: &mut Vec<u8>, id: u64, is_last: bool, is_current: bool, places: &[u8]) {
    let flags = if is_last { END } else { 0 } | if is_current { CURRENT } else { 0 };
    Frame::begin(out, Kind::PLACES, flags, id).end(places.len() as u64);
    out.extend_from_slice(places);
}

/// Writes the beginning of a `DATA` frame, which so many bytes are to follow.
pub fn encode_data(out: &mut Vec<u8>, id: u64, is_last: bool, data_len: u64) {
    Frame::begin(out, Kind::DATA, if is_last { END } else { 0 }, id).end(data_len);
}
