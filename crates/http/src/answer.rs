//! From a request to its answer, for every protocol alike.

use std::pin::pin;
use std::sync::Arc;

use elcache_core::condition::Condition;
use elcache_core::key::Key;

use crate::app::App;
use crate::config::HttpConfig;
use crate::method::Method;
use crate::patience::within;
use crate::problem::Problem;
use crate::receive::Failed;
use crate::request::{Action, Request};
use crate::response::{Headers, Response};
use crate::route::CACHE_METHODS;
use crate::source::Source;
use crate::{admin, get, put, sparse};

/// Does what is asked. `None` when the client has left in the meantime. `buffer` is used for the headers.
pub(crate) async fn answer<S: Source>(
    app: &Arc<App>,
    config: &HttpConfig,
    request: Request,
    body: &mut S,
    buffer: Vec<u8>,
) -> Option<Response> {
    let Request { method, expects_continue, cors, action } = request;
    let head_only = method == Method::Head;
    let headers = Headers::in_buffer(buffer);
    let mut response = match action {
        Ok(Action::Get(get)) => get::get(app, &get, head_only, headers, config.first_byte_timeout).await,
        Ok(Action::Put(put)) => match put::put(app, config, *put, expects_continue, body, headers).await {
            Ok(response) => response,
            Err((Failed::Problem(problem), headers)) => problem.into_response(headers, false),
            Err((Failed::Gone, _)) => return None,
        },
        Ok(Action::Delete(key, condition)) => match delete(app, config, &key, &condition).await {
            Ok(()) => Response::bare(204, headers),
            Err(problem) => problem.into_response(headers, false),
        },
        Ok(Action::Sparse(request)) => {
            match sparse::answer(app, config, *request, head_only, body, headers).await {
                Ok(response) => response,
                Err(Failed::Problem(problem)) => problem.into_response(Headers::default(), head_only),
                Err(Failed::Gone) => return None,
            }
        }
        Ok(Action::Methods(methods)) => answer_methods(methods, headers),
        Ok(Action::Page(page, format)) => admin::page(app, page, format, headers, head_only),
        Ok(Action::Drain) => admin::drain().into_response(headers, false),
        Err(problem) => problem.into_response(headers, head_only),
    };
    response.headers.append(&cors);
    app.metrics.http_request(method.as_str(), response.status);
    Some(response)
}

async fn delete(
    app: &Arc<App>,
    config: &HttpConfig,
    key: &Key,
    condition: &Condition,
) -> Result<(), Problem> {
    match within(config.first_byte_timeout, pin!(app.engine.delete(key, condition))).await {
        Some(Ok(true)) => Ok(()),
        Some(Ok(false)) => Err(Problem::new(404, "No value is stored under this key.")),
        Some(Err(error)) => Err(Problem::write(&error, config.value_size)),
        None => Err(Problem::busy()),
    }
}

fn answer_methods(methods: &'static str, mut headers: Headers) -> Response {
    headers.text("Allow", methods.as_bytes());
    if methods == CACHE_METHODS {
        headers.line("Accept-Ranges: bytes\r\n");
    }
    Response::bare(204, headers)
}
