//! Cross-origin requests of browsers (the Fetch standard's CORS protocol), where origins are configured.

use crate::fields::{Field, Fields};
use crate::method::Method;
use crate::response::Headers;
use crate::route::SPARSE_METHODS;
use crate::text;

const EXPOSED: &str = "Accept-Ranges, Age, Content-Disposition, Content-Encoding, Content-Length, Content-Range, Date, \
                       ETag, Last-Modified, Retry-After, X-ElCache-Available, X-ElCache-Chunks, X-ElCache-Completion, \
                       X-ElCache-Flags, X-ElCache-Hit, X-ElCache-Size, X-ElCache-Stale, X-ElCache-TTL, \
                       X-ElCache-Upload-Id";

/// The lines that go with every answer to this request; none when no origin is configured.
pub(crate) fn headers(method: Method, fields: &Fields<'_>, origins: &[String]) -> Headers {
    let mut headers = Headers::default();
    if origins.is_empty() {
        return headers;
    }
    let any = origins.iter().any(|origin| origin == "*");
    if !any {
        headers.line("Vary: Origin\r\n");
    }
    let Some(origin) = fields.only(Field::Origin) else { return headers };
    if !any && !origins.iter().any(|allowed| allowed.as_bytes() == origin) {
        return headers;
    }
    headers.text("Access-Control-Allow-Origin", if any { b"*" } else { origin });
    match (method, fields.only(Field::RequestMethod)) {
        (Method::Options, Some(_)) => preflight(fields, &mut headers),
        _ => headers.text("Access-Control-Expose-Headers", EXPOSED.as_bytes()),
    }
    headers
}

/// Any header may be sent: those that mean nothing here are passed over.
fn preflight(fields: &Fields<'_>, headers: &mut Headers) {
    // All that any resource has: which of them this one has, a request finds out.
    headers.text("Access-Control-Allow-Methods", SPARSE_METHODS.as_bytes());
    headers.line("Access-Control-Max-Age: 86400\r\n");
    let asked = fields.only(Field::RequestHeaders).unwrap_or_default();
    let token = |name: &[u8]| {
        name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.!#$%&'*+^`|~".contains(byte))
    };
    if text::list(asked).next().is_some() && text::list(asked).all(token) {
        headers.text("Access-Control-Allow-Headers", asked);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(method: Method, lines: &[(&'static str, &'static str)], origins: &[&str]) -> String {
        let fields = Fields::collect(lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        String::from_utf8(headers(method, &fields, &origins).as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn origins_are_answered_when_configured() {
        let page = [("Origin", "https://a.example")];
        assert_eq!(answer(Method::Get, &page, &[]), "");
        assert_eq!(answer(Method::Get, &page, &["https://b.example"]), "Vary: Origin\r\n");
        assert_eq!(answer(Method::Get, &[], &["*"]), "");
        let allowed = answer(Method::Get, &page, &["https://a.example"]);
        assert!(allowed.contains("Access-Control-Allow-Origin: https://a.example\r\n"), "{allowed}");
        assert!(allowed.contains("Vary: Origin\r\n") && allowed.contains("ETag"), "{allowed}");
        assert!(answer(Method::Get, &page, &["*"]).starts_with("Access-Control-Allow-Origin: *\r\n"));
    }

    #[test]
    fn a_preflight_is_told_methods_and_headers() {
        let lines = [
            ("Origin", "https://a.example"),
            ("Access-Control-Request-Method", "PUT"),
            ("Access-Control-Request-Headers", "x-elcache-ttl, content-type"),
        ];
        let answer = answer(Method::Options, &lines, &["*"]);
        assert!(answer.contains("Access-Control-Allow-Methods: GET, HEAD, PUT, POST, PATCH"), "{answer}");
        assert!(answer.contains("Access-Control-Allow-Headers: x-elcache-ttl, content-type\r\n"), "{answer}");
    }
}
