//! The one table from what went wrong to what the client is told: a status, and a problem document (RFC 9457).

use std::borrow::Cow;

use elcache_engine::{Missing, SparseError, WriteError};

use crate::json::Object;
use crate::response::{Body, Headers, Response, reason};

/// Something that is answered with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    /// What happened, and what to do about it.
    pub(crate) detail: Cow<'static, str>,
    pub(crate) note: Note,
    /// The connection cannot be used any further.
    pub(crate) close: bool,
}

/// What goes with the status: a header, or members of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Note {
    /// None.
    Nothing,
    /// `Allow`, with 405.
    Allow(&'static str),
    /// `Retry-After` in seconds, with 503.
    RetryAfter(u64),
    /// The size of the value, with 416.
    Size(u64),
    /// `X-ElCache-Hit: miss`, with 404.
    Miss,
    /// `X-ElCache-Hit: partial` and the floored percentage that is there, with 404.
    Partial(u8),
    /// `missing`, the ranges that are not written, with 404 and 409.
    Missing(Missing),
}

impl Problem {
    pub(crate) fn new(status: u16, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, detail: detail.into(), note: Note::Nothing, close: false }
    }

    pub(crate) fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(400, detail)
    }

    pub(crate) fn with(self, note: Note) -> Self {
        Self { note, ..self }
    }

    /// The same, after which the connection is closed.
    pub(crate) fn closing(self) -> Self {
        Self { close: true, ..self }
    }

    pub(crate) fn busy() -> Self {
        Self::new(503, "The node is busy at the moment. Retry after the time in Retry-After.")
            .with(Note::RetryAfter(1))
    }

    pub(crate) fn miss() -> Self {
        Self::new(404, "No value is stored under this key.").with(Note::Miss)
    }

    pub(crate) fn partial(available_percent: u8) -> Self {
        let detail = format!(
            "Only {available_percent}% of what was asked for is still cached. Store the value again, or ask for a \
             range that is whole."
        );
        Self::new(404, detail).with(Note::Partial(available_percent))
    }

    pub(crate) fn unsatisfiable(size: u64) -> Self {
        let detail = format!("The value has {size} bytes and none of them lies in the range.");
        Self::new(416, detail).with(Note::Size(size))
    }

    pub(crate) fn condition_failed() -> Self {
        Self::new(
            412,
            "A precondition of the request does not hold for the current value. Read it and decide anew.",
        )
    }

    pub(crate) fn over_limit(value_limit: u64) -> Self {
        Self::new(413, format!("The value is larger than the configured limit of {value_limit} bytes."))
    }

    pub(crate) fn stalled() -> Self {
        Self::new(408, "The rest of the request did not arrive in time. Send it again.").closing()
    }

    /// What a failed write comes to.
    pub(crate) fn write(error: &WriteError, value_limit: u64) -> Self {
        match error {
            WriteError::ConditionFailed => Self::condition_failed(),
            WriteError::OverLimit => Self::over_limit(value_limit),
            WriteError::DoesNotFit => Self::new(
                507,
                "The value is larger than the tiers that may keep it. Give the node more room.",
            ),
            WriteError::Busy => Self::busy(),
            WriteError::DigestMismatch => {
                Self::bad("The body does not have the sha-256 that the request names. Nothing was stored.")
            }
            WriteError::Failed => Self::new(
                503,
                "The value could not be written to the disk. The node's log and /health tell more.",
            )
            .with(Note::RetryAfter(5)),
            WriteError::WrongLength => Self::bad("The body is not as long as announced. Nothing was stored."),
        }
    }

    /// What is asked for is not all written.
    pub(crate) fn missing(status: u16, missing: Missing) -> Self {
        Self::new(status, "Not every byte of it has been written. The ranges in missing are still to come.")
            .with(Note::Missing(missing))
    }

    /// What a failed step of an upload by ranges comes to.
    pub(crate) fn sparse(error: SparseError, value_limit: u64) -> Self {
        match error {
            SparseError::NoUpload => Self::new(404, "No upload of this key is open. POST opens one."),
            SparseError::OtherUpload => Self::new(
                409,
                "Another upload of this key is open than the one that X-ElCache-Upload-Id names, which has ended.",
            ),
            SparseError::AlreadyOpen => Self::new(
                409,
                "An upload of this key is open already. Finalize it, or give it up with DELETE.",
            ),
            SparseError::TooManyUploads => Self::new(
                503,
                "As many uploads are open as limits.uploads allows. Retry when one of them has ended.",
            )
            .with(Note::RetryAfter(5)),
            SparseError::TooManyRanges => Self::new(
                507,
                "What is written consists of too many separate ranges. Write what is between them, or larger ranges.",
            ),
            SparseError::OutOfBounds => Self::bad("The range does not lie within the upload's size."),
            SparseError::Incomplete(missing) => Self::missing(409, missing),
            SparseError::Write(WriteError::DoesNotFit) => Self::new(
                507,
                "Uploads hold as much of the tiers as they may. Let one of them end, or give the node more room.",
            ),
            SparseError::Write(error) => Self::write(&error, value_limit),
        }
    }

    /// The answer. A HEAD gets it without the document.
    pub(crate) fn into_response(self, mut headers: Headers, head_only: bool) -> Response {
        self.note.add_to_headers(&mut headers);
        headers.line("Content-Type: application/problem+json\r\n");
        let title = reason(self.status);
        let document = Object::new()
            .text("type", "about:blank")
            .text("title", title)
            .number("status", u64::from(self.status))
            .text("detail", &self.detail);
        let document = self.note.add_to_document(document).finish();
        let length = Some(document.len() as u64);
        let body = if head_only { Body::None } else { Body::Text(document) };
        Response { status: self.status, headers, body, length, close: self.close }
    }
}

impl Note {
    fn add_to_headers(&self, headers: &mut Headers) {
        match self {
            Self::Nothing | Self::Missing(_) => {}
            Self::Allow(methods) => headers.text("Allow", methods.as_bytes()),
            Self::RetryAfter(seconds) => headers.number("Retry-After", *seconds),
            Self::Size(size) => headers.text("Content-Range", format!("bytes */{size}").as_bytes()),
            Self::Miss => headers.line("X-ElCache-Hit: miss\r\n"),
            Self::Partial(percent) => {
                headers.line("X-ElCache-Hit: partial\r\n");
                headers.text("X-ElCache-Available", format!("{percent}%").as_bytes());
            }
        }
    }

    fn add_to_document(&self, document: Object) -> Object {
        if let Self::Missing(missing) = self { push_missing(document, missing) } else { document }
    }
}

/// Adds what is missing: `missing_truncated` only where there is more than is listed.
pub(crate) fn push_missing(document: Object, missing: &Missing) -> Object {
    let document = document.pairs("missing", &missing.ranges);
    if missing.truncated { document.boolean("missing_truncated", true) } else { document }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_says_what_happened_and_carries_its_header() {
        let response = Problem::partial(42).into_response(Headers::default(), false);
        let headers = String::from_utf8(response.headers.as_bytes().to_vec()).unwrap();
        assert!(headers.contains("X-ElCache-Hit: partial\r\nX-ElCache-Available: 42%\r\n"), "{headers}");
        let Body::Text(document) = response.body else { panic!("no document") };
        let document = String::from_utf8(document).unwrap();
        assert!(
            document.contains("\"status\": 404,\n") && document.contains("\"title\": \"Not Found\""),
            "{document}"
        );
    }

    #[test]
    fn what_is_missing_stands_in_the_document() {
        let text = |missing: Missing| {
            let response =
                Problem::sparse(SparseError::Incomplete(missing), 1).into_response(Headers::default(), false);
            assert_eq!(response.status, 409);
            let Body::Text(document) = response.body else { panic!("no document") };
            String::from_utf8(document).unwrap()
        };
        let all = text(Missing { ranges: vec![(0, 5), (7, 9)], truncated: false });
        assert!(all.ends_with(",\n  \"missing\": [[0, 5], [7, 9]]\n}\n"), "{all}");
        let some = text(Missing { ranges: vec![(0, 5)], truncated: true });
        assert!(some.ends_with(",\n  \"missing\": [[0, 5]],\n  \"missing_truncated\": true\n}\n"), "{some}");
    }

    #[test]
    fn every_failed_step_of_an_upload_has_its_status() {
        let table = [
            (SparseError::NoUpload, 404),
            (SparseError::OtherUpload, 409),
            (SparseError::AlreadyOpen, 409),
            (SparseError::TooManyUploads, 503),
            (SparseError::TooManyRanges, 507),
            (SparseError::OutOfBounds, 400),
            (SparseError::Incomplete(Missing::default()), 409),
            (SparseError::Write(WriteError::ConditionFailed), 412),
            (SparseError::Write(WriteError::DoesNotFit), 507),
            (SparseError::Write(WriteError::OverLimit), 413),
            (SparseError::Write(WriteError::Busy), 503),
            (SparseError::Write(WriteError::DigestMismatch), 400),
            (SparseError::Write(WriteError::WrongLength), 400),
        ];
        for (error, status) in table {
            let problem = Problem::sparse(error, 1);
            assert_eq!(problem.status, status);
            assert_eq!(status == 503, matches!(problem.note, Note::RetryAfter(_)), "{problem:?}");
        }
    }

    #[test]
    fn every_failed_write_has_its_status() {
        let table = [
            (WriteError::ConditionFailed, 412),
            (WriteError::OverLimit, 413),
            (WriteError::DoesNotFit, 507),
            (WriteError::Busy, 503),
            (WriteError::Failed, 503),
            (WriteError::DigestMismatch, 400),
            (WriteError::WrongLength, 400),
        ];
        for (error, status) in table {
            assert_eq!(Problem::write(&error, 1).status, status);
        }
    }
}
