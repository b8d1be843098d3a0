//! Uploads by ranges: `/sparse/{key}`.

use std::collections::VecDeque;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_core::value::{OperationId, Version};
use elcache_engine::{Missing, Sparse, SparseError, Status, WriteError};

use crate::app::App;
use crate::config::HttpConfig;
use crate::get::{OCTETS, push_etag};
use crate::json::Object;
use crate::multipart::{Multipart, push_content_range};
use crate::patience::within;
use crate::problem::{Problem, push_missing};
use crate::range::{Ranges, Selection};
use crate::receive::{Failed, receive};
use crate::request::{Ask, Piece, Put, SparseRequest};
use crate::response::{Body, Headers, Response};
use crate::source::Source;
use crate::stream::{Part, Stream};
use crate::target::percent_encode;
use crate::upload_id;

/// Missing ranges that a status lists.
const STATUS_RANGES: usize = 10_000;
/// Missing ranges that a problem lists.
const PROBLEM_RANGES: usize = 1000;

/// Does what is asked of an upload.
pub(crate) async fn answer<S: Source>(
    app: &Arc<App>,
    config: &HttpConfig,
    request: SparseRequest,
    head_only: bool,
    body: &mut S,
    headers: Headers,
) -> Result<Response, Failed> {
    let SparseRequest { key, id, ask } = request;
    let uploads = Uploads { app, config };
    match ask {
        Ask::Open(size, put) => uploads.open(size, put, headers).await,
        // Boxed, because a range is large and a connection that does something else should not be.
        Ask::Write(piece) => Box::pin(uploads.write(&key, id, piece, body, headers)).await,
        Ask::Status(from) => {
            let upload = uploads.find(&key, id).await?;
            Ok(tell(&key, &upload, from, headers, head_only))
        }
        Ask::Read(ranges) => {
            let upload = uploads.find(&key, id).await?;
            uploads.read(&upload, &ranges, headers, head_only).await
        }
        Ask::Finalize(condition, operation) => {
            uploads.finalize(&key, id, condition, operation, headers).await
        }
        Ask::Abort => uploads.abort(&key, id, headers).await,
    }
}

/// The uploads of a node, under one configuration.
struct Uploads<'a> {
    app: &'a Arc<App>,
    config: &'a HttpConfig,
}

impl Uploads<'_> {
    fn problem(&self, error: SparseError) -> Problem {
        Problem::sparse(error, self.config.value_size)
    }

    /// What a step of the engine comes to, within the time in which a request is answered.
    async fn timely<T>(&self, step: impl Future<Output = Result<T, SparseError>>) -> Result<T, Problem> {
        let done = within(self.config.first_byte_timeout, Box::pin(step).as_mut()).await;
        done.unwrap_or(Err(WriteError::Busy.into())).map_err(|error| self.problem(error))
    }

    async fn find(&self, key: &Key, id: Option<Version>) -> Result<Arc<Sparse>, Problem> {
        self.timely(self.app.engine.sparse(key, id)).await
    }

    async fn open(&self, size: u64, put: Put, mut headers: Headers) -> Result<Response, Failed> {
        let limit = self.config.value_size;
        if size > limit {
            return Err(Problem::over_limit(limit).into());
        }
        let (key, options) = put.into_options(Some(size), limit);
        let id = self.timely(self.app.engine.sparse_open(key, size, options)).await?;
        headers.write("X-ElCache-Upload-Id", |out| upload_id::push(out, id));
        Ok(empty(201, headers))
    }

    /// What is wrong with a range is said before the client sends it, if it waits for that.
    async fn write<S: Source>(
        &self,
        key: &Key,
        id: Option<Version>,
        piece: Piece,
        body: &mut S,
        mut headers: Headers,
    ) -> Result<Response, Failed> {
        let upload = self.find(key, id).await?;
        let size = upload.size();
        if piece.total.is_some_and(|total| total != size) {
            let detail =
                format!("Content-Range is of a value of another size than the upload's {size} bytes.");
            return Err(Problem::bad(detail).into());
        }
        let len = match (piece.len, body.length()) {
            (Some(named), Some(announced)) if named != announced => {
                return Err(Problem::bad("The body is not as long as Content-Range says.").into());
            }
            (named, announced) => named.or(announced),
        };
        let problem = |error| self.problem(error);
        let mut range = upload.range(piece.from, len, piece.sha256).await.map_err(problem)?;
        receive(body, &mut range, problem).await?;
        let percent = self.timely(range.finish()).await?;
        headers.text("X-ElCache-Completion", format!("{percent}%").as_bytes());
        Ok(empty(202, headers))
    }

    /// Answers with what is written, if it is all that is asked for.
    async fn read(
        &self,
        upload: &Arc<Sparse>,
        ranges: &Ranges,
        headers: Headers,
        head_only: bool,
    ) -> Result<Response, Failed> {
        let size = upload.size();
        let whole = [Span::whole(size)];
        let selection = ranges.select(size);
        let spans = match &selection {
            Selection::Whole => &whole[..],
            Selection::One(span) => std::slice::from_ref(span),
            Selection::Many(spans) => spans,
            Selection::Unsatisfiable => return Err(Problem::unsatisfiable(size).into()),
        };
        if !spans.iter().all(|span| upload.covers(*span)) {
            return Err(missing(upload, spans).into());
        }
        let mut answer = data(upload, &selection, headers, head_only);
        if let Body::Stream(stream) = &mut answer.body
            && !matches!(within(self.config.first_byte_timeout, pin!(stream.prime())).await, Some(Ok(())))
        {
            // What was lost is missing from now on.
            let lost = !spans.iter().all(|span| upload.covers(*span));
            return Err(if lost { missing(upload, spans) } else { Problem::busy() }.into());
        }
        Ok(answer)
    }

    async fn finalize(
        &self,
        key: &Key,
        id: Option<Version>,
        condition: Condition,
        operation: Option<OperationId>,
        mut headers: Headers,
    ) -> Result<Response, Failed> {
        let stored = self.timely(self.app.engine.sparse_finalize(key, id, condition, operation)).await?;
        headers.write("ETag", |out| push_etag(out, &stored.digest));
        Ok(empty(201, headers))
    }

    async fn abort(&self, key: &Key, id: Option<Version>, headers: Headers) -> Result<Response, Failed> {
        self.timely(self.app.engine.sparse_abort(key, id)).await?;
        Ok(Response::bare(204, headers))
    }
}

fn empty(status: u16, headers: Headers) -> Response {
    Response { length: Some(0), ..Response::bare(status, headers) }
}

fn tell(key: &Key, upload: &Sparse, from: u64, mut headers: Headers, head_only: bool) -> Response {
    let document = describe(key, &upload.status(from, STATUS_RANGES));
    headers.line("Cache-Control: no-store\r\n");
    headers.write("X-ElCache-Upload-Id", |out| upload_id::push(out, upload.id()));
    Response::document(headers, 200, "application/json", document, head_only)
}

fn describe(key: &Key, status: &Status) -> Vec<u8> {
    let document = Object::new()
        .text("key", &percent_encode(key.as_bytes()))
        .number("total_size", status.size)
        .number("completion_percent", u64::from(status.percent()))
        .boolean("complete", status.written == status.size);
    push_missing(document, &status.missing).finish()
}

/// What of the spans is missing, in their order.
fn missing(upload: &Sparse, spans: &[Span]) -> Problem {
    let mut all = Missing::default();
    for span in spans {
        let found = upload.missing_in(*span, PROBLEM_RANGES - all.ranges.len());
        all.ranges.extend(found.ranges);
        all.truncated |= found.truncated;
    }
    Problem::missing(404, all)
}

/// Headers and body of 200 and 206. There is no validator: what is written may be overwritten.
fn data(upload: &Arc<Sparse>, selection: &Selection, mut headers: Headers, head_only: bool) -> Response {
    let size = upload.size();
    headers.line("Accept-Ranges: bytes\r\nCache-Control: no-store\r\n");
    headers.number("X-ElCache-Size", size);
    let (status, span) = match selection {
        Selection::Many(spans) => return data_in_parts(upload, spans, headers),
        Selection::One(span) => {
            headers.write("Content-Range", |out| push_content_range(out, *span, size));
            (206, *span)
        }
        Selection::Whole | Selection::Unsatisfiable => (200, Span::whole(size)),
    };
    headers.text("Content-Type", OCTETS);
    let body = if head_only || span.is_empty() {
        Body::None
    } else {
        stream(upload, VecDeque::from([Part::Span(span)]))
    };
    Response { status, headers, body, length: Some(span.len()), close: false }
}

fn data_in_parts(upload: &Arc<Sparse>, spans: &[Span], mut headers: Headers) -> Response {
    // Whoever writes to the upload must not be able to guess it, and there is no digest yet to make it of.
    let random = RandomState::new();
    let boundary = format!("elcache-{:016x}{:016x}", random.hash_one(0), random.hash_one(1)).into_bytes();
    let multipart = Multipart { boundary, content_type: OCTETS, size: upload.size() };
    headers.text("Content-Type", &multipart.content_type());
    let (parts, length) = multipart.parts(spans);
    Response { status: 206, headers, body: stream(upload, parts), length: Some(length), close: false }
}

fn stream(upload: &Arc<Sparse>, parts: VecDeque<Part>) -> Body {
    Body::Stream(Box::new(Stream::of_upload(Arc::clone(upload), parts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(key: &'static [u8], written: u64, size: u64, missing: Missing) -> String {
        let status = Status { size, written, missing };
        let key = Key::new(bytes::Bytes::from_static(key)).unwrap();
        String::from_utf8(describe(&key, &status)).unwrap()
    }

    #[test]
    fn a_status_has_one_member_a_line() {
        let missing = Missing { ranges: vec![(0, 5), (995, 1000)], truncated: false };
        let expected = "{\n  \"key\": \"a/b%20%22%FF\",\n  \"total_size\": 1000,\n  \"completion_percent\": 99,\n  \
                        \"complete\": false,\n  \"missing\": [[0, 5], [995, 1000]]\n}\n";
        assert_eq!(described(b"a/b \"\xff", 990, 1000, missing), expected);
        let cut = described(b"k", 0, 9, Missing { ranges: vec![(0, 1)], truncated: true });
        assert!(cut.ends_with(",\n  \"missing\": [[0, 1]],\n  \"missing_truncated\": true\n}\n"), "{cut}");
        let empty = described(b"k", 0, 0, Missing::default());
        assert!(
            empty.contains("\"completion_percent\": 100,\n  \"complete\": true,\n  \"missing\": []\n}"),
            "{empty}"
        );
    }
}
