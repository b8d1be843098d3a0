//! DuckDB, which reads of a Parquet file the columns and row groups that a query needs.

use std::ffi::OsStr;

use elcache_tests::client::{Client, python};
use elcache_tests::home::Home;
use elcache_tests::report;
use elcache_tests::scratch::Scratch;

const SCRIPT: &str = include_str!("client_duckdb.py");
const MIB: u64 = 1 << 20;

fn duckdb(args: &[&str]) -> String {
    let python = python();
    let script = [OsStr::new("-c"), OsStr::new(SCRIPT)];
    let args = args.iter().map(OsStr::new);
    Client::run(python.to_str().expect("a path of text"), script.into_iter().chain(args)).expect_success()
}

#[test]
fn soak_client_duckdb_reads_the_columns_of_a_parquet_file_that_it_needs() {
    let scratch = Scratch::new();
    let path = scratch.path().join("table.parquet");
    let file = path.to_str().expect("a path of text");
    duckdb(&["make", file]);
    let size = std::fs::metadata(file).expect("the table").len();
    // Less memory than the table has.
    let home = Home::new("64", "2G");
    let node = home.node();
    let url = node.url("/cache/table.parquet");
    Client::run("curl", ["-q", "-sSf", "--noproxy", "*", "-T", file, &url]).expect_success();
    for (what, part, sql) in [
        ("one column", 8, "SELECT count(*), sum(bucket), min(bucket), max(bucket) FROM $TABLE"),
        ("one row", 8, "SELECT * FROM $TABLE WHERE id = 3210987"),
        ("groups", 8, "SELECT bucket, count(*) FROM $TABLE GROUP BY bucket ORDER BY bucket LIMIT 20"),
        ("all", 0, "SELECT sum(hash(id, noise, other, bucket, label)) FROM $TABLE"),
    ] {
        let expected = duckdb(&["ask", file, sql]);
        let before = node.bytes_read();
        assert_eq!(duckdb(&["ask", &url, sql]), expected, "{what}");
        let read = node.bytes_read() - before;
        report(format_args!("{what}: {} of {} MiB read", read / MIB, size / MIB));
        match part {
            0 => assert!(read > size * 9 / 10, "{what}: {read} of {size} bytes, and all are needed"),
            part => assert!(read < size / part, "{what}: {read} of {size} bytes read"),
        }
    }
    node.assert_healthy();
}
