//! STAT: what is known of a value, and which of its bytes are there.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Context;

use elcache_core::key::Key;
use elcache_core::span::Span;
use elcache_engine::{Engine, Runs};
use elcache_protocol::request::Stat;
use elcache_protocol::{Kind, Reply};

use crate::desk::{Desk, Work};
use crate::get::{describe, key_of, look_up};
use crate::status::Refused;
use crate::steps::Done;

/// The most runs in an answer.
const MOST_RUNS: usize = 4096;

/// What is known of a value.
pub(crate) struct Known {
    reply: Reply<'static>,
    /// Of what is there: offset and length.
    runs: Vec<(u64, u64)>,
}

impl Desk {
    pub(crate) fn stat(&mut self, cx: &mut Context<'_>, id: u64, stat: &Stat<'_>) {
        let key = key_of(&stat.named);
        self.enter(id, Kind::STAT, self.now_if(stat.named.deadline), Work::Step);
        let (engine, runs) = (Arc::clone(&self.local.engine), stat.runs);
        let step = Box::pin(async move { Done::Known(known(&engine, &key, runs).await.map(Box::new)) });
        self.start(cx, id, Some(self.config.first_byte_timeout), step);
    }

    /// Answers with what is known.
    pub(crate) fn tell(&mut self, id: u64, known: &Known) {
        let Some(open) = self.take(id) else { return };
        self.count(open.kind, known.reply.status);
        let bytes = (known.runs.len() as u64).saturating_mul(16);
        self.output.write(|out| {
            known.reply.encode(out, id, true, bytes);
            for (offset, length) in &known.runs {
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&length.to_le_bytes());
            }
        });
    }
}

async fn known(
    engine: &Arc<Engine>,
    key: &Key,
    runs: Option<(u64, Option<NonZeroU64>)>,
) -> Result<Known, Refused> {
    let value = look_up(engine, key).await?;
    let reply = describe(&value.meta, value.tier);
    let Some((offset, length)) = runs else { return Ok(Known { reply, runs: Vec::new() }) };
    let size = value.meta.size;
    let end = offset.saturating_add(length.map_or(u64::MAX, NonZeroU64::get)).min(size);
    let span = Span::new(offset, end).ok_or(Refused::behind_the_end(size))?;
    let Runs { ranges, covered, slowest } =
        engine.runs(&value, span, MOST_RUNS).await.ok_or(Refused::busy())?;
    let tier = describe(&value.meta, slowest.max(value.tier)).tier;
    Ok(Known { reply: Reply { covered: Some(covered), tier, ..reply }, runs: ranges })
}
