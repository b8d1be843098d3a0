//! DELETE.

use std::sync::Arc;
use std::task::Context;

use elcache_core::condition::Condition;
use elcache_protocol::request::Named;
use elcache_protocol::{Kind, Reply, Status};

use crate::desk::{Desk, Work};
use crate::get::key_of;
use crate::status::Refused;
use crate::steps::Done;

impl Desk {
    pub(crate) fn delete(&mut self, cx: &mut Context<'_>, id: u64, named: &Named<'_>) {
        let key = key_of(named);
        self.enter(id, Kind::DELETE, self.now_if(named.deadline), Work::Step);
        let engine = Arc::clone(&self.local.engine);
        let step = Box::pin(async move {
            Done::Answered(match engine.delete(&key, &Condition::default()).await {
                Ok(true) => Ok(Box::new(Reply::new(Status::Ok))),
                Ok(false) => Err(Refused::miss()),
                Err(error) => Err(error.into()),
            })
        });
        self.start(cx, id, Some(self.config.first_byte_timeout), step);
    }
}
