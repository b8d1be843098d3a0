//! The ARC core against the hit counts that the reference implementation reaches on the paper's OLTP trace, and the
//! concurrent shell against the core.

use std::io::{self, Write};
use std::path::PathBuf;

#[path = "../examples/traces/arc_core.rs"]
mod arc_core;
#[path = "../examples/traces/replay.rs"]
mod replay;
#[path = "../examples/traces/shell.rs"]
mod shell;

use arc_core::ArcCore;
use shell::Shell;

/// Fewer hits apart than this, and it is the same algorithm.
const TOLERANCE: u64 = 20;

/// The folder of the traces; without one, says that a test is skipped, past the harness that keeps `eprintln!` of
/// passing tests to itself.
fn folder_for(what: &str) -> Option<PathBuf> {
    let folder = elcache_traces::folder();
    if folder.is_none() {
        writeln!(io::stderr(), "{}", elcache_traces::absent(what)).expect("a standard error");
    }
    folder
}

#[test]
fn oltp_gives_the_hits_of_the_reference_at_every_capacity() {
    let Some(folder) = folder_for("replay of oltp") else { return };
    let requests = elcache_traces::load(&folder, "oltp").expect("a readable trace");
    let known = [(1000, 355_999), (2000, 421_227), (5000, 505_072), (10_000, 565_609), (15_000, 597_855)];
    for (capacity, hits) in known {
        let outcome = replay::replay(&mut ArcCore::new(capacity), &requests);
        assert!(
            outcome.hits.abs_diff(hits) <= TOLERANCE,
            "{capacity} pages: {} hits, not {hits}",
            outcome.hits
        );
    }
}

#[test]
fn sized_block_traces_reach_the_byte_weighted_reference() {
    let Some(folder) = folder_for("replay of sized traces") else { return };
    let known =
        [("cloudphysics_io", 202_976_972, 22.37, 8.56), ("tencent_block_ns3300", 343_224_934, 49.65, 41.64)];
    for (name, capacity, requests, bytes) in known {
        let trace = elcache_traces::load(&folder, name).expect("a readable trace");
        let outcome = replay::replay(&mut ArcCore::new(capacity), &trace);
        assert!(outcome.hit_ratio() >= requests - 0.3, "{name}: {outcome:?}");
        assert!(outcome.byte_hit_ratio() >= bytes - 0.3, "{name}: {outcome:?}");
    }
}

/// Shards each have a part of the capacity and a target of their own, hits reach the policy late or never, and threads
/// overtake one another: all of that together may cost this much.
#[test]
fn the_concurrent_shell_on_two_threads_stays_close_to_the_core() {
    let Some(folder) = folder_for("replay of oltp in the concurrent shell") else { return };
    let requests = elcache_traces::load(&folder, "oltp").expect("a readable trace");
    for (capacity, points) in [(1000, 0.5), (2000, 0.3), (5000, 0.3), (10_000, 0.3), (15_000, 0.3)] {
        let core = replay::replay(&mut ArcCore::new(capacity), &requests).hit_ratio();
        // By default a small capacity is one shard; many small shards are the harder case.
        let forced = (capacity == 1000).then_some(Some(8));
        for shards in [None].into_iter().chain(forced) {
            let shell = Shell::of_pages(capacity, shards);
            let reached = replay::replay_on(2, &shell, &requests).hit_ratio();
            assert!(reached >= core - points, "{capacity} pages: {reached:.2} %, and the core {core:.2} %");
        }
    }
}

/// Here a record's head, the rounding to pages and the entry's bookkeeping come out of the capacity too.
#[test]
fn the_concurrent_shell_reaches_the_byte_weighted_reference_with_its_overhead() {
    let Some(folder) = folder_for("replay of a sized trace in the concurrent shell") else { return };
    let trace = elcache_traces::load(&folder, "cloudphysics_io").expect("a readable trace");
    let outcome = replay::replay_on(2, &Shell::of_bytes(202_976_972, None), &trace);
    assert!(outcome.hit_ratio() >= 22.37 - 0.3, "{outcome:?}");
    assert!(outcome.byte_hit_ratio() >= 8.56 - 0.3, "{outcome:?}");
}
