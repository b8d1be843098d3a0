//! The flags, as assignments. They are short forms of keys, and the last word.

use super::load::Assignment;
use super::node::{Node, Place, Raw};
use super::schema;
use super::size::Size;
use crate::args::Args;

pub(super) fn assignments(args: &Args) -> Vec<Assignment> {
    let mebibytes = args.memory.as_deref().map(|text| Size::with_unit(text, "MiB"));
    let gibibytes = args.disk_size.as_deref().map(|text| Size::with_unit(text, "GiB"));
    let flags = [
        ("--port", "network.http_port", args.port.as_deref()),
        ("--memory", "memory.max_size", mebibytes.as_deref()),
        ("--disk", "disk.path", args.disk.as_deref()),
        ("--disk-size", "disk.max_size", gibibytes.as_deref()),
        ("--unix", "network.unix_socket_path", args.unix.as_deref()),
        ("--log-format", "log.format", args.log_format.as_deref()),
        ("--log-level", "log.level", args.log_level.as_deref()),
    ];
    let single = flags.into_iter().filter_map(|(flag, key, text)| {
        let node = Node::text_at(text?, Place::Flag(flag));
        Some(Assignment { key: schema::find(key)?, node })
    });
    single.chain(seeds(&args.seed)).collect()
}

/// Seeds on the command line replace those of the file, as any other value does.
fn seeds(seeds: &[String]) -> Option<Assignment> {
    let place = Place::Flag("--seed");
    let key = schema::find("cluster.seed_nodes").filter(|_| !seeds.is_empty())?;
    let items = seeds.iter().map(|seed| Node::text_at(seed, place.clone())).collect();
    Some(Assignment { key, node: Node { raw: Raw::List(items), place } })
}
