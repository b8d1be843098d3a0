//! Requests for an upload by ranges.

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::value::{OperationId, Version};

use super::{
    Put, choose_ranges, parse_digests, parse_key, parse_operation, parse_preconditions, parse_query_range,
    parse_stored,
};
use crate::condition::Comparison;
use crate::content_range::ContentRange;
use crate::fields::{Field, Fields};
use crate::method::Method;
use crate::problem::Problem;
use crate::range::Ranges;
use crate::route::Route;
use crate::target::query_values;
use crate::text::{NumberError, parse_decimal};
use crate::upload_id;

/// A request for an upload by ranges.
#[derive(Debug)]
pub(crate) struct SparseRequest {
    pub(crate) key: Key,
    /// Which upload it is meant for, if it says so.
    pub(crate) id: Option<Version>,
    pub(crate) ask: Ask,
}

/// What is to be done with the upload.
#[derive(Debug)]
pub(crate) enum Ask {
    /// Open one of so many bytes.
    Open(u64, Put),
    Write(Piece),
    /// Tell what is missing from this offset on.
    Status(u64),
    Read(Ranges),
    Finalize(Condition, Option<OperationId>),
    Abort,
}

/// Where a body is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) from: u64,
    /// How long the body is according to `Content-Range`.
    pub(crate) len: Option<u64>,
    /// How long the whole is according to `Content-Range`.
    pub(crate) total: Option<u64>,
    /// What the body is to come to.
    pub(crate) sha256: Option<[u8; 32]>,
}

/// Reads one. `None` when the resource does not have the method.
pub(super) fn parse(
    method: Method,
    route: Route<'_>,
    query: &[u8],
    fields: &Fields<'_>,
) -> Result<Option<SparseRequest>, Problem> {
    let (Route::Sparse(key) | Route::SparseData(key) | Route::SparseFinalize(key)) = route else {
        return Ok(None);
    };
    let ask = match (route, method) {
        (Route::Sparse(_), Method::Post) => return parse_open(key, fields).map(Some),
        (Route::Sparse(_), Method::Put | Method::Patch) => Ask::Write(parse_piece(query, fields)?),
        (Route::Sparse(_), Method::Get | Method::Head) => Ask::Status(parse_offset(query)?.unwrap_or(0)),
        (Route::Sparse(_), Method::Delete) => Ask::Abort,
        (Route::SparseData(_), Method::Get | Method::Head) => {
            Ask::Read(parse_data_ranges(method, query, fields)?)
        }
        (Route::SparseFinalize(_), Method::Post) => {
            let condition = parse_preconditions(fields, Comparison::Weak)?.condition;
            Ask::Finalize(condition, parse_operation(fields)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(SparseRequest { key: parse_key(key)?, id: parse_id(fields)?, ask }))
}

fn parse_open(key: &[u8], fields: &Fields<'_>) -> Result<SparseRequest, Problem> {
    let whole = [Field::ContentDigest, Field::ReprDigest, Field::ContentRange];
    if whole.into_iter().any(|field| fields.all(field).next().is_some()) {
        return Err(Problem::bad(
            "Opening an upload takes no digest and no Content-Range: ranges are written with PATCH, each with its own.",
        ));
    }
    let put = parse_stored(key, fields)?;
    let size = match fields.single(Field::Size)?.map(parse_decimal) {
        Some(Ok(size)) => size,
        Some(Err(NumberError::TooLarge)) => u64::MAX,
        Some(Err(NumberError::Malformed)) | None => {
            return Err(Problem::bad(
                "X-ElCache-Size is the value's length in bytes, a decimal number, once.",
            ));
        }
    };
    Ok(SparseRequest { key: put.key.clone(), id: None, ask: Ask::Open(size, put) })
}

fn parse_id(fields: &Fields<'_>) -> Result<Option<Version>, Problem> {
    let Some(text) = fields.single(Field::UploadId)? else { return Ok(None) };
    let id = upload_id::parse(text);
    id.map(Some).ok_or_else(|| {
        Problem::bad(
            "X-ElCache-Upload-Id has 32 hexadecimal digits, as the answer to opening the upload gave them.",
        )
    })
}

fn parse_piece(query: &[u8], fields: &Fields<'_>) -> Result<Piece, Problem> {
    if fields.all(Field::ReprDigest).next().is_some() {
        return Err(Problem::bad(
            "Repr-Digest is about the whole value. Content-Digest is about the bytes of this request.",
        ));
    }
    let sha256 = parse_digests(fields)?;
    let offset = parse_offset(query)?;
    let Some(header) = fields.single(Field::ContentRange)? else {
        let from = offset.ok_or_else(|| {
            Problem::bad("Where these bytes belong is not said. Send Content-Range: bytes FIRST-LAST/SIZE or ?offset=FIRST.")
        })?;
        return Ok(Piece { from, len: None, total: None, sha256 });
    };
    let ContentRange { span, total } = ContentRange::parse(header).ok_or_else(|| {
        Problem::bad(
            "Content-Range is bytes FIRST-LAST/SIZE, FIRST at most LAST, LAST below SIZE; SIZE may be *.",
        )
    })?;
    if offset.is_some_and(|offset| offset != span.start()) {
        return Err(Problem::bad("Content-Range and the query member offset name two different places."));
    }
    Ok(Piece { from: span.start(), len: Some(span.len()), total, sha256 })
}

/// An offset that is more than 64 bits hold lies behind every value, as the last one that they hold does.
fn parse_offset(query: &[u8]) -> Result<Option<u64>, Problem> {
    let mut members = query_values(query, b"offset");
    let Some(value) = members.next() else { return Ok(None) };
    let offset = match value.as_deref().map(parse_decimal) {
        Some(Ok(offset)) => Some(offset),
        Some(Err(NumberError::TooLarge)) => Some(u64::MAX),
        Some(Err(NumberError::Malformed)) | None => None,
    };
    let offset = offset.filter(|_| members.next().is_none());
    offset
        .map(Some)
        .ok_or_else(|| Problem::bad("The query member offset is a decimal number of bytes, once."))
}

/// What is written has no validator before it is finalized, so that no `If-Range` holds.
fn parse_data_ranges(method: Method, query: &[u8], fields: &Fields<'_>) -> Result<Ranges, Problem> {
    let (ranges, if_range) = choose_ranges(method, parse_query_range(query)?, fields);
    Ok(if if_range.is_some() { Ranges::Whole } else { ranges })
}

#[cfg(test)]
mod tests;
