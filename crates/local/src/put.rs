//! PUT: small values whose data came with the request are written in one go, others as their data come.

use std::sync::Arc;
use std::task::Context;

use bytes::Bytes;
use elcache_core::condition::{Condition, Tags};
use elcache_core::key::Key;
use elcache_core::value::OperationId;
use elcache_engine::{Opened, PutOptions, Stored};
use elcache_protocol::request::Put;
use elcache_protocol::{Header, Reply, Status};

use crate::desk::{Desk, End, Work};
use crate::get::key_of;
use crate::intake::{Sink, Start};
use crate::status::Refused;
use crate::steps::Done;

/// Data up to this length are read with the frame that they are in.
pub(crate) const SMALL: u64 = 16 << 10;

/// The answer to a write that succeeded.
pub(crate) fn stored(stored: &Stored) -> Reply<'static> {
    Reply { digest: Some(stored.digest), created: Some(stored.created), ..Reply::new(Status::Ok) }
}

/// What a write asks of the engine.
pub(crate) fn options(put: &Put<'_>, value_limit: u64) -> PutOptions {
    let absent = Condition { if_none_match: Some(Tags::Any), ..Condition::default() };
    PutOptions {
        length: put.size,
        ttl_seconds: put.ttl,
        flags: put.user_flags,
        no_memory: put.no_memory,
        no_disk: put.no_disk,
        no_cluster: put.no_cluster,
        operation: put.operation.and_then(|id| OperationId::new(Bytes::copy_from_slice(id))),
        condition: if put.if_absent { absent } else { Condition::default() },
        value_limit,
        ..PutOptions::default()
    }
}

impl Desk {
    pub(crate) fn put(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        put: &Put<'_>,
        data: Option<&[u8]>,
    ) -> Result<(), End> {
        let key = key_of(&put.named);
        let mut options = options(put, self.config.value_size);
        if header.is_end() && options.length.is_none() {
            options.length = Some(header.data_len);
        }
        if options.length.is_some_and(|length| length > options.value_limit) {
            let refused = Refused::from(elcache_engine::WriteError::OverLimit);
            self.answer(header.id, header.kind, &refused.reply());
            return Ok(());
        }
        match data {
            Some(data) if header.is_end() && options.length == Some(data.len() as u64) => {
                self.put_small(cx, header, put, key, options, Bytes::copy_from_slice(data));
                Ok(())
            }
            _ => {
                let (length, deadline) = (options.length, put.named.deadline);
                let engine = Arc::clone(&self.local.engine);
                let begin = Box::pin(async move {
                    let opened = Box::pin(engine.open(key, options)).await;
                    Done::Begun(opened.map_err(Refused::from).map(|opened| match opened {
                        Opened::Upload(upload) => Start::Sink(Box::new(Sink::Upload(upload))),
                        Opened::Known(stored) => Start::Known(stored),
                    }))
                });
                self.take_in(cx, header, length, deadline, begin, data)
            }
        }
    }

    fn put_small(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        put: &Put<'_>,
        key: Key,
        options: PutOptions,
        body: Bytes,
    ) {
        self.enter(header.id, header.kind, self.now_if(put.named.deadline), Work::Step);
        let engine = Arc::clone(&self.local.engine);
        let step = Box::pin(async move {
            let written = engine.put_small(&key, &options, &body).await;
            Done::Answered(written.map(|done| Box::new(stored(&done))).map_err(Refused::from))
        });
        self.start(cx, header.id, Some(self.config.first_byte_timeout), step);
    }
}
