//! `Content-Range` of a request: what is read of it, written down again, reads as the same; all else is refused.
#![no_main]

use elcache_http::content_range::ContentRange;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    for text in [text.to_vec(), [b"bytes ", text].concat()] {
        let Some(read) = ContentRange::parse(&text) else { continue };
        let ContentRange { span, total } = read;
        assert!(!span.is_empty() && total.is_none_or(|total| span.end() <= total), "{read:?}");
        let whole = total.map_or("*".to_owned(), |total| total.to_string());
        let again = format!("bytes {}-{}/{whole}", span.start(), span.end() - 1);
        assert_eq!(ContentRange::parse(again.as_bytes()), Some(read));
    }
});
