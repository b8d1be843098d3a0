//! Values that many writers put together, range by range.

use std::sync::Arc;
use std::task::Context;

use elcache_core::condition::Condition;
use elcache_core::key::Key;
use elcache_engine::{Engine, Found, PutOptions, WriteError};
use elcache_protocol::request::{Named, Put, SparseWrite};
use elcache_protocol::{Header, Kind, Reply, Status};

use crate::desk::{Desk, End, Work};
use crate::get::key_of;
use crate::intake::{Sink, Start};
use crate::put::{options, stored};
use crate::status::Refused;
use crate::steps::{Done, Step};

impl Desk {
    pub(crate) fn sparse_open(&mut self, cx: &mut Context<'_>, id: u64, put: &Put<'_>) {
        let key = key_of(&put.named);
        let options = options(put, self.config.value_size);
        let (engine, size) = (Arc::clone(&self.local.engine), put.size.unwrap_or(0));
        let step = async move { Done::Answered(open(&engine, key, size, options).await.map(Box::new)) };
        self.step_of(cx, id, Kind::SPARSE_OPEN, &put.named, Box::pin(step));
    }

    pub(crate) fn sparse_write(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        write: &SparseWrite<'_>,
        data: Option<&[u8]>,
    ) -> Result<(), End> {
        let key = key_of(&write.named);
        let (engine, offset, length) = (Arc::clone(&self.local.engine), write.offset, write.length);
        let begin = Box::pin(async move {
            let range = match engine.sparse(&key, None).await {
                Ok(upload) => upload.range(offset, Some(length), None).await,
                Err(error) => Err(error),
            };
            Done::Begun(range.map(|range| Start::Sink(Box::new(Sink::Range(range)))).map_err(Refused::from))
        });
        self.take_in(cx, header, Some(length), write.named.deadline, begin, data)
    }

    pub(crate) fn sparse_finalize(&mut self, cx: &mut Context<'_>, id: u64, named: &Named<'_>) {
        let key = key_of(named);
        let engine = Arc::clone(&self.local.engine);
        let step = async move {
            let done = Box::pin(engine.sparse_finalize(&key, None, Condition::default(), None)).await;
            Done::Answered(done.map(|done| Box::new(stored(&done))).map_err(Refused::from))
        };
        self.step_of(cx, id, Kind::SPARSE_FINALIZE, named, Box::pin(step));
    }

    pub(crate) fn sparse_abort(&mut self, cx: &mut Context<'_>, id: u64, named: &Named<'_>) {
        let key = key_of(named);
        let engine = Arc::clone(&self.local.engine);
        let step = async move {
            let done = engine.sparse_abort(&key, None).await;
            Done::Answered(done.map(|()| Box::new(Reply::new(Status::Ok))).map_err(Refused::from))
        };
        self.step_of(cx, id, Kind::SPARSE_ABORT, named, Box::pin(step));
    }

    /// A request that is one step.
    fn step_of(&mut self, cx: &mut Context<'_>, id: u64, kind: Kind, named: &Named<'_>, step: Step) {
        self.enter(id, kind, self.now_if(named.deadline), Work::Step);
        self.start(cx, id, Some(self.config.first_byte_timeout), step);
    }
}

/// The engine looks at conditions when an upload becomes a value. Here that request carries none, so that there be a value already is
/// looked at when the upload is opened.
async fn open(
    engine: &Arc<Engine>,
    key: Key,
    size: u64,
    options: PutOptions,
) -> Result<Reply<'static>, Refused> {
    if !options.condition.is_empty() {
        match engine.get(&key).await {
            Found::Miss => {}
            Found::Value(_) => return Err(WriteError::ConditionFailed.into()),
            Found::Busy => return Err(Refused::busy()),
        }
    }
    Box::pin(engine.sparse_open(key, size, options)).await?;
    Ok(Reply::new(Status::Ok))
}
