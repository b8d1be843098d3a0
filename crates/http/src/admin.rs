//! The pages about the node: `/health`, `/stats`, `/metrics`, `/cluster`.

use elcache_engine::TierStats;
use elcache_metrics::Format;

use crate::app::App;
use crate::json::Object;
use crate::problem::Problem;
use crate::response::{Headers, Response};
use crate::route::Page;

const JSON: &str = "application/json";

/// Answers a GET or HEAD of a page.
pub(crate) fn page(app: &App, page: Page, format: Format, headers: Headers, head_only: bool) -> Response {
    match page {
        Page::Health => health(app, headers, head_only),
        Page::Stats => Response::document(headers, 200, JSON, stats(app), head_only),
        Page::Metrics => {
            let text = app.metrics.render(format, &app.snapshot()).into_bytes();
            Response::document(headers, 200, format.content_type(), text, head_only)
        }
        Page::Cluster => {
            let document = Object::new().text("mode", "standalone").finish();
            Response::document(headers, 200, JSON, document, head_only)
        }
    }
}

/// A node that is alone has nobody to hand its values to.
pub(crate) fn drain() -> Problem {
    Problem::new(
        409,
        "The node is not part of a cluster. Only a node of a cluster can be drained; stop this one.",
    )
}

fn health(app: &App, mut headers: Headers, head_only: bool) -> Response {
    let state = app.health().get();
    let mut document = Object::new().text("status", state.as_str());
    if !state.reasons().is_empty() {
        document = document.texts("reasons", state.reasons());
    }
    let status = if state.serves() { 200 } else { 503 };
    if status == 503 {
        headers.number("Retry-After", 1);
    }
    headers.line("Cache-Control: no-store\r\n");
    Response::document(headers, status, JSON, document.finish(), head_only)
}

fn stats(app: &App) -> Vec<u8> {
    let stats = app.engine.stats();
    let tiers = |object: Object| {
        stats
            .tiers
            .iter()
            .fold(object, |tiers, (name, tier)| tiers.object(name.as_str(), |object| counts(object, tier)))
    };
    counts(Object::new(), &stats.total).object("tiers", tiers).finish()
}

fn counts(object: Object, stats: &TierStats) -> Object {
    object
        .number("hits", stats.hits)
        .number("misses", stats.misses)
        .number("partial_hits", stats.partial_hits)
        .number("bytes_read", stats.bytes_read)
        .number("bytes_written", stats.bytes_written)
        .number("evictions", stats.evictions)
        .number("entry_count", stats.usage.entries)
        .number("size_bytes", stats.usage.size_bytes)
        .number("capacity_bytes", stats.usage.capacity_bytes)
        .number("hit_rate_percent", stats.hit_rate_percent())
}
