//! A request, read once from its head into types and trusted from there on.

mod sparse;

use std::num::NonZeroU64;

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_core::value::{KeptHeaders, KeptHeadersBuilder, OperationId};
use elcache_engine::PutOptions;
use elcache_metrics::Format;

use crate::condition::{BadTags, Comparison, IfRange, Preconditions, parse_tags};
use crate::config::HttpConfig;
use crate::fields::{Field, Fields};
use crate::method::Method;
use crate::problem::{Note, Problem};
use crate::range::{self, Ranges};
use crate::response::Headers;
use crate::route::{CACHE_METHODS, Page, Route};
use crate::target::{Target, percent_decode, query_values};
use crate::text::parse_decimal;
use crate::{cors, date, digest_field};

pub(crate) use self::sparse::{Ask, Piece, SparseRequest};

/// A time to live above this, some thirty thousand years, is taken for this, so that no sum of times overflows.
const MAX_TTL_SECONDS: u64 = 1_000_000_000_000;

/// What a client wants, and what goes with every answer to it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    /// The client waits for `100 Continue` before it sends the body.
    pub(crate) expects_continue: bool,
    /// Header lines to be added to the answer.
    pub(crate) cors: Headers,
    pub(crate) action: Result<Action, Problem>,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Action {
    Get(Box<Get>),
    Put(Box<Put>),
    Delete(Key, Condition),
    Sparse(Box<SparseRequest>),
    /// Tell which methods a resource has.
    Methods(&'static str),
    Page(Page, Format),
    Drain,
}

/// A GET or HEAD of a key.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) key: Key,
    pub(crate) ranges: Ranges,
    pub(crate) if_range: Option<IfRange>,
    pub(crate) preconditions: Preconditions,
}

/// A PUT or POST of a key. The length of the body is not known yet.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) key: Key,
    pub(crate) ttl_seconds: Option<NonZeroU64>,
    pub(crate) flags: u32,
    pub(crate) no_memory: bool,
    pub(crate) no_disk: bool,
    pub(crate) no_cluster: bool,
    pub(crate) operation: Option<OperationId>,
    pub(crate) headers: KeptHeaders,
    pub(crate) condition: Condition,
    pub(crate) sha256: Option<[u8; 32]>,
}

impl Put {
    /// As the engine takes it.
    pub(crate) fn into_options(self, length: Option<u64>, value_limit: u64) -> (Key, PutOptions) {
        let options = PutOptions {
            length,
            ttl_seconds: self.ttl_seconds,
            flags: self.flags,
            no_memory: self.no_memory,
            no_disk: self.no_disk,
            no_cluster: self.no_cluster,
            operation: self.operation,
            headers: self.headers,
            condition: self.condition,
            sha256: self.sha256,
            value_limit,
        };
        (self.key, options)
    }
}

impl Request {
    /// Reads method, target and headers. What is wrong with them becomes the action's problem.
    pub(crate) fn parse<'a>(
        method: &[u8],
        target: &'a [u8],
        headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
        config: &HttpConfig,
    ) -> Self {
        let method = Method::parse(method);
        let fields = Fields::collect(headers);
        let cors = cors::headers(method, &fields, &config.cors_origins);
        let (expects_continue, action) = match expectation(&fields) {
            Ok(expects) => (expects, action(method, target, &fields)),
            Err(problem) => (false, Err(problem)),
        };
        Self { method, expects_continue, cors, action }
    }
}

fn expectation(fields: &Fields<'_>) -> Result<bool, Problem> {
    let mut expects = false;
    for value in fields.all(Field::Expect) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            return Err(Problem::new(417, "The only expectation that can be met is 100-continue.").closing());
        }
        expects = true;
    }
    Ok(expects)
}

fn action(method: Method, target: &[u8], fields: &Fields<'_>) -> Result<Action, Problem> {
    if !method.is_implemented() {
        return Err(Problem::new(
            501,
            "This method is not implemented. Keys have GET, HEAD, PUT, POST and DELETE.",
        ));
    }
    let target = Target::parse(target).ok_or_else(|| {
        Problem::bad(
            "The request target is neither a path, nor a URL of http or https, nor *. It has no fragment.",
        )
    })?;
    let (path, query) = match target {
        Target::Path { path, query } => (path, query),
        Target::Server if method == Method::Options => return Ok(Action::Methods(CACHE_METHODS)),
        Target::Server => return Err(not_allowed("OPTIONS")),
    };
    let route = Route::of(path);
    let Some(methods) = route.methods() else {
        return Err(Problem::new(
            404,
            "Unknown route. There are /cache/{key}, /sparse/{key}, /health, /stats, /metrics, /cluster and /cluster/nodes.",
        ));
    };
    match (route, method) {
        (_, Method::Options) => Ok(Action::Methods(methods)),
        (Route::Cache(key), Method::Get | Method::Head) => {
            Ok(Action::Get(Box::new(parse_get(method, key, query, fields)?)))
        }
        (Route::Cache(key), Method::Put | Method::Post) => Ok(Action::Put(Box::new(parse_put(key, fields)?))),
        (Route::Cache(key), Method::Delete) => {
            Ok(Action::Delete(parse_key(key)?, parse_preconditions(fields, Comparison::Weak)?.condition))
        }
        (Route::Page(page), Method::Get | Method::Head) => {
            let accept = fields.only(Field::Accept).unwrap_or_default();
            Ok(Action::Page(page, Format::from_accept(accept)))
        }
        (Route::Drain, Method::Post) => Ok(Action::Drain),
        _ => match sparse::parse(method, route, query, fields)? {
            Some(request) => Ok(Action::Sparse(Box::new(request))),
            None => Err(not_allowed(methods)),
        },
    }
}

fn not_allowed(methods: &'static str) -> Problem {
    Problem::new(405, "This resource does not have this method. Those it has stand in Allow.")
        .with(Note::Allow(methods))
}

fn parse_key(raw: &[u8]) -> Result<Key, Problem> {
    let decoded = percent_decode(raw).ok_or_else(|| {
        Problem::bad("The key has a % that two hexadecimal digits do not follow. Write % as %25.")
    })?;
    let bytes = match decoded {
        std::borrow::Cow::Borrowed(bytes) => bytes::Bytes::copy_from_slice(bytes),
        std::borrow::Cow::Owned(bytes) => bytes.into(),
    };
    Key::new(bytes).map_err(|error| Problem::bad(format!("This is no key: {error}.")))
}

fn parse_get(method: Method, key: &[u8], query: &[u8], fields: &Fields<'_>) -> Result<Get, Problem> {
    let key = parse_key(key)?;
    let from_query = parse_query_range(query)?;
    if fields.is_empty() && from_query.is_none() {
        return Ok(Get {
            key,
            ranges: Ranges::Whole,
            if_range: None,
            preconditions: Preconditions::default(),
        });
    }
    let (ranges, if_range) = choose_ranges(method, from_query, fields);
    Ok(Get { key, ranges, if_range, preconditions: parse_preconditions(fields, Comparison::Weak)? })
}

fn choose_ranges(
    method: Method,
    from_query: Option<Ranges>,
    fields: &Fields<'_>,
) -> (Ranges, Option<IfRange>) {
    match (from_query, fields.only(Field::Range)) {
        _ if method == Method::Head => (Ranges::Whole, None),
        (Some(ranges), _) => (ranges, None),
        (None, Some(header)) => (Ranges::parse(header), fields.only(Field::IfRange).map(IfRange::parse)),
        (None, None) => (Ranges::Whole, None),
    }
}

fn parse_query_range(query: &[u8]) -> Result<Option<Ranges>, Problem> {
    let mut members = query_values(query, b"range");
    let Some(value) = members.next() else { return Ok(None) };
    let ranges = value.and_then(|value| range::parse_query(&value)).filter(|_| members.next().is_none());
    ranges.map(Some).ok_or_else(|| {
        Problem::bad("The query member range is OFFSET-LENGTH, in bytes, once, with a length of at least 1.")
    })
}

fn parse_preconditions(fields: &Fields<'_>, none_match: Comparison) -> Result<Preconditions, Problem> {
    let bad = |BadTags| Problem::bad("If-Match and If-None-Match take * or a list of entity tags in quotes.");
    let seconds = |field| fields.only(field).and_then(date::parse);
    Ok(Preconditions {
        condition: Condition {
            if_match: parse_tags(fields.all(Field::IfMatch), Comparison::Strong).map_err(bad)?,
            if_none_match: parse_tags(fields.all(Field::IfNoneMatch), none_match).map_err(bad)?,
            unmodified_since: seconds(Field::IfUnmodifiedSince),
        },
        modified_since: seconds(Field::IfModifiedSince),
    })
}

fn parse_put(key: &[u8], fields: &Fields<'_>) -> Result<Put, Problem> {
    if fields.all(Field::ContentRange).next().is_some() {
        return Err(Problem::bad(
            "Content-Range: a PUT stores a whole value. Parts of one are written through /sparse.",
        ));
    }
    Ok(Put {
        condition: parse_preconditions(fields, Comparison::Weak)?.condition,
        sha256: parse_digests(fields)?,
        ..parse_stored(key, fields)?
    })
}

/// What is kept with a value, and where; no conditions, no digest.
fn parse_stored(key: &[u8], fields: &Fields<'_>) -> Result<Put, Problem> {
    Ok(Put {
        key: parse_key(key)?,
        ttl_seconds: parse_ttl(fields)?,
        flags: parse_flags(fields)?,
        no_memory: parse_bool(fields, Field::NoMemory, "X-ElCache-No-Memory")?,
        no_disk: parse_bool(fields, Field::NoDisk, "X-ElCache-No-Disk")?,
        no_cluster: parse_bool(fields, Field::NoCluster, "X-ElCache-No-Cluster")?,
        operation: parse_operation(fields)?,
        headers: parse_kept(fields)?,
        condition: Condition::default(),
        sha256: None,
    })
}

fn parse_ttl(fields: &Fields<'_>) -> Result<Option<NonZeroU64>, Problem> {
    let Some(value) = fields.single(Field::Ttl)? else { return Ok(None) };
    let seconds = parse_decimal(value).ok().and_then(|seconds| NonZeroU64::new(seconds.min(MAX_TTL_SECONDS)));
    seconds.map(Some).ok_or_else(|| Problem::bad("X-ElCache-TTL is a whole number of seconds, at least 1."))
}

fn parse_flags(fields: &Fields<'_>) -> Result<u32, Problem> {
    let Some(value) = fields.single(Field::Flags)? else { return Ok(0) };
    let flags = parse_decimal(value).ok().and_then(|flags| u32::try_from(flags).ok());
    flags.ok_or_else(|| Problem::bad("X-ElCache-Flags is a decimal number from 0 to 4294967295."))
}

fn parse_bool(fields: &Fields<'_>, field: Field, name: &str) -> Result<bool, Problem> {
    match fields.single(field)? {
        None | Some(b"false" | b"0") => Ok(false),
        Some(b"true" | b"1") => Ok(true),
        Some(_) => Err(Problem::bad(format!("{name} is true, 1, false or 0."))),
    }
}

fn parse_operation(fields: &Fields<'_>) -> Result<Option<OperationId>, Problem> {
    let Some(value) = fields.single(Field::OperationId)? else { return Ok(None) };
    let id = OperationId::new(bytes::Bytes::copy_from_slice(value));
    id.map(Some).ok_or_else(|| Problem::bad("X-ElCache-Operation-Id has 1 to 64 bytes."))
}

fn parse_digests(fields: &Fields<'_>) -> Result<Option<[u8; 32]>, Problem> {
    let mut found = None;
    for value in fields.all(Field::ContentDigest).chain(fields.all(Field::ReprDigest)) {
        let sha256 = digest_field::parse(value).map_err(|_| {
            Problem::bad("The sha-256 of a digest header is not 32 bytes of base64 between colons.")
        })?;
        if found.is_some() && sha256.is_some() && found != sha256 {
            return Err(Problem::bad(
                "Content-Digest and Repr-Digest name two different sha-256 for one body.",
            ));
        }
        found = found.or(sha256);
    }
    Ok(found)
}

fn parse_kept(fields: &Fields<'_>) -> Result<KeptHeaders, Problem> {
    fields.single(Field::ContentType)?;
    fields.single(Field::ContentDisposition)?;
    let mut kept = KeptHeadersBuilder::default();
    for line in fields.lines() {
        let name = match line.field {
            Field::ContentType => "Content-Type",
            Field::ContentEncoding => "Content-Encoding",
            Field::ContentDisposition => "Content-Disposition",
            Field::CacheControl => "Cache-Control",
            // A field name is a token, so it is ASCII.
            Field::Meta => std::str::from_utf8(line.name).unwrap_or_default(),
            _ => continue,
        };
        kept.push(name, line.value)
            .map_err(|_| Problem::new(431, "The headers to be kept with the value are more than 60 KiB."))?;
    }
    Ok(kept.finish())
}

#[cfg(test)]
mod tests;
