//! GET and HEAD of a key.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::tier::TierName;
use elcache_core::value::Metadata;
use elcache_engine::{Found, Readable, Value};

use crate::app::App;
use crate::condition::Verdict;
use crate::date;
use crate::multipart::{Multipart, boundary_of, push_content_range};
use crate::patience::within;
use crate::problem::Problem;
use crate::range::Selection;
use crate::request::Get;
use crate::response::{Body, Headers, Response};
use crate::stream::{Part, Stream};

/// The type of what nobody has named a type for.
pub(crate) const OCTETS: &[u8] = b"application/octet-stream";
/// Up to this length a copy behind the head is cheaper than a reference.
const COPY_LIMIT: u64 = 16 << 10;

/// Answers it, within `limit`.
pub(crate) async fn get(
    app: &Arc<App>,
    get: &Get,
    head_only: bool,
    headers: Headers,
    limit: Duration,
) -> Response {
    let outcome = match find(app, get, limit).await {
        Ok(found) => respond(app, get, found, head_only, headers, limit).await,
        Err(problem) => Err((problem, headers)),
    };
    outcome.unwrap_or_else(|(problem, headers)| problem.into_response(headers, head_only))
}

struct Hit {
    value: Value,
    tier: TierName,
    selection: Selection,
}

/// Looks the value up and makes sure that all of what will be answered is there. That comes before the
/// preconditions, since they do not count where the answer is 404 anyway (RFC 9110 section 13.2.1).
async fn find(app: &Arc<App>, get: &Get, limit: Duration) -> Result<Hit, Problem> {
    let value = match within(limit, pin!(app.engine.get(&get.key))).await {
        Some(Found::Value(value)) => value,
        Some(Found::Miss) => return Err(Problem::miss()),
        Some(Found::Busy) | None => return Err(Problem::busy()),
    };
    let changed = get.if_range.is_some_and(|if_range| !if_range.holds(&value.meta));
    let selection = if changed { Selection::Whole } else { get.ranges.select(value.meta.size) };
    let tier = match value.inline() {
        Some(_) => value.tier,
        None => readable(app, &value, &selection, limit).await?,
    };
    Ok(Hit { value, tier, selection })
}

async fn readable(
    app: &Arc<App>,
    value: &Value,
    selection: &Selection,
    limit: Duration,
) -> Result<TierName, Problem> {
    let whole = [Span::whole(value.meta.size)];
    let spans = match selection {
        Selection::Whole => &whole[..],
        Selection::One(span) => std::slice::from_ref(span),
        Selection::Many(spans) => spans,
        Selection::Unsatisfiable => return Ok(value.tier),
    };
    match within(limit, pin!(app.engine.readable(value, spans))).await {
        Some(Readable::Whole(tier)) => Ok(tier),
        Some(Readable::Partial { available_percent }) => Err(Problem::partial(available_percent)),
        Some(Readable::Gone) => Err(Problem::miss()),
        Some(Readable::Busy) | None => Err(Problem::busy()),
    }
}

async fn respond(
    app: &Arc<App>,
    get: &Get,
    hit: Hit,
    head_only: bool,
    mut headers: Headers,
    limit: Duration,
) -> Result<Response, (Problem, Headers)> {
    let Hit { value, tier, selection } = hit;
    let now_ms = app.engine.clock().now_ms();
    match get.preconditions.judge(&value.meta) {
        Verdict::Failed => return Err((Problem::condition_failed(), headers)),
        Verdict::NotModified => {
            validators(&mut headers, &value.meta, tier, now_ms);
            if let Some(control) = value.meta.headers.get("Cache-Control") {
                headers.text("Cache-Control", control);
            }
            return Ok(Response::bare(304, headers));
        }
        Verdict::Proceed => {}
    }
    if selection == Selection::Unsatisfiable {
        return Err((Problem::unsatisfiable(value.meta.size), headers));
    }
    let mut answer = plan(app, &get.key, Hit { value, tier, selection }, head_only, headers, now_ms);
    if let Body::Stream(stream) = &mut answer.body
        && !matches!(within(limit, pin!(stream.prime())).await, Some(Ok(())))
    {
        return Err((vanished(app, get, limit).await, Headers::default()));
    }
    Ok(answer)
}

/// What to say of a value whose first piece went between finding it and reading it.
async fn vanished(app: &Arc<App>, get: &Get, limit: Duration) -> Problem {
    match find(app, get, limit).await {
        Ok(_) => Problem::busy(),
        Err(problem) => problem,
    }
}

/// Headers and body of 200 and 206.
fn plan(app: &Arc<App>, key: &Key, hit: Hit, head_only: bool, mut headers: Headers, now_ms: u64) -> Response {
    let Hit { value, tier, selection } = hit;
    let size = value.meta.size;
    validators(&mut headers, &value.meta, tier, now_ms);
    description(&mut headers, &value.meta);
    let (status, span) = match selection {
        Selection::Many(spans) => return plan_many(app, key, value, &spans, headers),
        Selection::One(span) => {
            headers.write("Content-Range", |out| push_content_range(out, span, size));
            (206, span)
        }
        Selection::Whole | Selection::Unsatisfiable => (200, Span::whole(size)),
    };
    headers.text("Content-Type", content_type(&value.meta));
    let length = Some(span.len());
    let body = if head_only || span.is_empty() {
        Body::None
    } else if span.len() <= COPY_LIMIT && value.inline().is_some() {
        app.engine.count_read(value.tier, span.len());
        Body::Small(value, span)
    } else {
        Body::Stream(Box::new(Stream::new(&app.engine, key, value, VecDeque::from([Part::Span(span)]))))
    };
    Response { status, headers, body, length, close: false }
}

fn plan_many(app: &Arc<App>, key: &Key, value: Value, spans: &[Span], mut headers: Headers) -> Response {
    let size = value.meta.size;
    let boundary = boundary_of(&value.meta.digest);
    let multipart = Multipart { boundary, content_type: content_type(&value.meta), size };
    headers.text("Content-Type", &multipart.content_type());
    let (parts, length) = multipart.parts(spans);
    let body = Body::Stream(Box::new(Stream::new(&app.engine, key, value, parts)));
    Response { status: 206, headers, body, length: Some(length), close: false }
}

fn content_type(meta: &Metadata) -> &[u8] {
    meta.headers.get("Content-Type").unwrap_or(OCTETS)
}

/// What 200, 206 and 304 have in common.
fn validators(headers: &mut Headers, meta: &Metadata, tier: TierName, now_ms: u64) {
    headers.write("ETag", |out| push_etag(out, &meta.digest));
    headers.write("Last-Modified", |out| date::push_date_once(out, meta.modified_ms / 1000));
    headers.number("Age", now_ms.saturating_sub(meta.modified_ms) / 1000);
    headers.text("X-ElCache-Hit", tier.as_str().as_bytes());
    if let Some(expires_ms) = meta.expires_ms {
        headers.number("X-ElCache-TTL", expires_ms.saturating_sub(now_ms) / 1000);
    }
}

/// What 200 and 206 have in common, the type of the content apart.
fn description(headers: &mut Headers, meta: &Metadata) {
    headers.line("Accept-Ranges: bytes\r\n");
    headers.number("X-ElCache-Size", meta.size);
    headers.number("X-ElCache-Chunks", meta.chunk_count());
    headers.number("X-ElCache-Flags", u64::from(meta.flags));
    for (name, value) in meta.headers.iter().filter(|(name, _)| *name != "Content-Type") {
        headers.text(name, value);
    }
}

/// Appends a strong entity tag: the digest in quotes.
pub(crate) fn push_etag(out: &mut Vec<u8>, digest: &elcache_core::digest::Digest) {
    out.push(b'"');
    out.extend_from_slice(&digest.to_hex());
    out.push(b'"');
}
