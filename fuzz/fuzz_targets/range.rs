//! `Range` and `?range=`: whatever a client sends is read or passed over, and selects nothing that is not there.
#![no_main]

use elcache_core::span::Span;
use elcache_http::range::{MAX_PARTS, Ranges, Selection, parse_query};
use libfuzzer_sys::fuzz_target;

/// The size of the value, and what is said of it.
type Input<'a> = (u64, &'a [u8]);

fuzz_target!(|input: Input<'_>| {
    let (size, text) = input;
    let queried = parse_query(text);
    for ranges in [Ranges::parse(text), Ranges::parse(&[b"bytes=", text].concat())].into_iter().chain(queried) {
        check(&ranges, size);
    }
});

fn check(ranges: &Ranges, size: u64) {
    match ranges.select(size) {
        Selection::Whole | Selection::Unsatisfiable => {}
        Selection::One(span) => assert!(is_within(span, size), "{span:?} of {size}"),
        Selection::Many(spans) => {
            assert!((2..=MAX_PARTS).contains(&spans.len()));
            assert!(spans.iter().all(|span| is_within(*span, size)), "{spans:?} of {size}");
            let sum: u128 = spans.iter().map(|span| u128::from(span.len())).sum();
            assert!(sum <= u128::from(size), "{spans:?} of {size}");
        }
    }
}

fn is_within(span: Span, size: u64) -> bool {
    !span.is_empty() && span.end() <= size
}
