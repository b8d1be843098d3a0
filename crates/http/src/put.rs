//! PUT and POST of a key: the body goes straight from its source into the room that the engine gives.

use std::pin::{Pin, pin};
use std::sync::Arc;

use elcache_core::key::Key;
use elcache_engine::{Opened, PutOptions, Stored, WriteError};

use crate::app::App;
use crate::config::HttpConfig;
use crate::get::push_etag;
use crate::patience::within;
use crate::problem::Problem;
use crate::receive::{Failed, receive};
use crate::request::Put;
use crate::response::{Headers, Response};
use crate::source::Source;

/// Bodies up to this length are collected before the engine sees them.
pub(crate) const SMALL: u64 = 16 << 10;

/// Stores the body.
pub(crate) async fn put<S: Source>(
    app: &Arc<App>,
    config: &HttpConfig,
    put: Put,
    waits_for_continue: bool,
    body: &mut S,
    headers: Headers,
) -> Result<Response, (Failed, Headers)> {
    let (key, options) = put.into_options(body.length(), config.value_size);
    match store(app, config, key, options, waits_for_continue, body).await {
        Ok(stored) => Ok(answer(&stored, headers)),
        Err(failed) => Err((failed, headers)),
    }
}

fn answer(stored: &Stored, mut headers: Headers) -> Response {
    headers.write("ETag", |out| push_etag(out, &stored.digest));
    if stored.created {
        Response { length: Some(0), ..Response::bare(201, headers) }
    } else {
        Response::bare(204, headers)
    }
}

async fn store<S: Source>(
    app: &Arc<App>,
    config: &HttpConfig,
    key: Key,
    options: PutOptions,
    waits_for_continue: bool,
    body: &mut S,
) -> Result<Stored, Failed> {
    let value_limit = options.value_limit;
    let length = body.length();
    if length.is_some_and(|length| length > value_limit) {
        return Err(Problem::over_limit(value_limit).into());
    }
    // What a client is to be refused before it sends the body, opening an upload finds out. A small body that is on
    // its way anyway is not worth that.
    let worth_asking = waits_for_continue || !options.condition.is_empty();
    match length {
        Some(length) if length <= SMALL && !worth_asking => {
            let bytes = body.whole(length as usize).await?;
            committed(config, value_limit, pin!(app.engine.put_small(&key, &options, bytes))).await
        }
        // Boxed, because an upload is large and a connection that does something else should not be.
        _ => Box::pin(upload(app, config, key, options, body)).await,
    }
}

async fn upload<S: Source>(
    app: &Arc<App>,
    config: &HttpConfig,
    key: Key,
    options: PutOptions,
    body: &mut S,
) -> Result<Stored, Failed> {
    let value_limit = options.value_limit;
    let problem = |error| Problem::write(&error, value_limit);
    let mut upload = match app.engine.open(key, options).await.map_err(problem)? {
        Opened::Known(stored) => return Ok(stored),
        Opened::Upload(upload) => upload,
    };
    receive(body, &mut upload, problem).await?;
    committed(config, value_limit, Box::pin(upload.finish()).as_mut()).await
}

async fn committed(
    config: &HttpConfig,
    value_limit: u64,
    commit: Pin<&mut impl Future<Output = Result<Stored, WriteError>>>,
) -> Result<Stored, Failed> {
    let stored = within(config.first_byte_timeout, commit).await.unwrap_or(Err(WriteError::Busy));
    Ok(stored.map_err(|error| Problem::write(&error, value_limit))?)
}
