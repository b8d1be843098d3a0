//! What a user reads who made a mistake.

use super::*;

/// The one mistake of a file.
fn mistake(file: &str) -> String {
    let mistakes = Given::file(file).mistakes();
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.concat()
}

#[test]
fn all_mistakes_of_all_layers_come_at_once_in_the_order_of_their_places() {
    let file = r#"{
  "memory": {
    "max_size": "lots",
    "hihg_watermark": 0.9
  },
  "log": {
    "format": "jsno"
  }
}"#;
    let given = Given::file(file)
        .with_variable("ELCACHE__NETWORK__PROT", "1")
        .with_variable("ELCACHE__LIMITS__UPLOADS", "-1")
        .with_flags(&["--port", "80800", "-s", "a:1", "-s", "b"]);
    let expected = [
        r#"e.json:3:17: memory.max_size: found "lots", expected a size: a number of bytes, or text such as "512M", "4GiB", "1.5TB""#,
        "e.json:4:5: memory.hihg_watermark: unknown key, did you mean memory.high_watermark?",
        r#"e.json:7:15: log.format: found "jsno", expected one of "auto", "text", "json""#,
        r#"ELCACHE__LIMITS__UPLOADS: limits.uploads: found "-1", expected a whole number, 0 to 4294967295"#,
        "ELCACHE__NETWORK__PROT: the variable names no key, expected ELCACHE__NETWORK__ and one of BIND_ADDRESS, \
         HTTP_PORT, HTTPS_PORT, ADMIN_ADDRESS, CLUSTER_PORT, UNIX_SOCKET_PATH, SHM_SIZE, MAX_CONNECTIONS",
        r#"--port: network.http_port: found "80800", expected a port number, 0 to 65535"#,
        r#"--seed: cluster.seed_nodes[1]: found "b", expected a host and a port, such as "cache-1:7890" or "[::1]:7890""#,
    ];
    assert_eq!(given.clone().mistakes(), expected);
    let whole = given.load().expect_err("there are mistakes").to_string();
    assert!(whole.starts_with("7 mistakes in the configuration\n  e.json:3:17: "), "{whole}");
}

#[test]
fn wrong_types_are_named() {
    for (file, expected) in [
        (r#"{"network": {"http_port": "80"}}"#, r#"found "80", expected a port number, 0 to 65535"#),
        (r#"{"network": {"http_port": 1.5}}"#, "found 1.5, expected a port number, 0 to 65535"),
        (r#"{"disk": {"use_fallocate": 1}}"#, "found 1, expected true or false"),
        (r#"{"http": {"cors_origins": "a"}}"#, r#"found "a", expected a list, each item text"#),
        (r#"{"memory": 5}"#, "memory: found 5, expected an object with any of max_size, high_watermark"),
        (r#"[]"#, "e.json:1:1: found a list, expected an object with any of node_name, memory, disk"),
        (r#"{"memory": {"max_size": null}}"#, "found null, expected a size"),
        (r#"{"cluster": {"weight": {}}}"#, r#"found an object, expected "auto", or a whole number"#),
        (r#"{"cluster": {"rebalance_delay": 30}}"#, "found 30, expected a duration with its unit"),
        (r#"{"disk": {"path": 7}}"#, "found 7, expected a path, or a list, each item a path or an object"),
        (
            r#"{"auth": {"anonymous": "all"}}"#,
            r#"expected "auto", or one of "none", "read", "write", "admin""#,
        ),
    ] {
        assert!(mistake(file).contains(expected), "{}", mistake(file));
    }
}

#[test]
fn mistakes_inside_a_value_say_where() {
    let file =
        r#"{"disk": {"path": ["/a", {"path": "", "size": 1}]}, "quotas": [{"prefix": "a"}, {"prefix": ""}]}"#;
    let starts = [
        "e.json:1:35: disk.path[1].path: found \"\", expected a path",
        "e.json:1:39: disk.path[1].size: found an unknown member, expected one of path, max_size",
        "e.json:1:64: quotas[0]: found an object, expected an object {\"prefix\"",
        "e.json:1:81: quotas[1]: found an object, expected an object {\"prefix\"",
    ];
    let mistakes = Given::file(file).mistakes();
    assert_eq!(mistakes.len(), starts.len(), "{mistakes:#?}");
    for (mistake, start) in mistakes.iter().zip(starts) {
        assert!(mistake.starts_with(start), "{mistake}\n{start}");
    }
}

#[test]
fn impossible_values_are_named() {
    for (file, expected) in [
        (r#"{"memory": {"max_size": "15M"}}"#, r#"found "15MiB", expected at least "16MiB""#),
        (r#"{"memory": {"high_watermark": 1.5}}"#, "found 1.5, expected a share above 0 and up to 1"),
        (r#"{"limits": {"connections": 0}}"#, "found 0, expected at least 1"),
        (r#"{"limits": {"idle_timeout": "0s"}}"#, r#"found "0s", expected at least "1ms""#),
        (r#"{"limits": {"value_size": "21T"}}"#, r#"found "21TiB", expected 1 to "20TiB""#),
        (r#"{"disk": {"path": []}}"#, "found an empty list, expected at least one directory"),
        (r#"{"disk": {"path": ["/a", "/a"]}}"#, r#"found "/a", expected each directory once"#),
        (r#"{"http": {"cors_origins": ["https://a/"]}}"#, r#"found "https://a/", expected "*" or an origin"#),
        (r#"{"node_name": "a b"}"#, "expected at most 255 bytes without spaces"),
        (r#"{"performance": {"worker_threads": 0}}"#, "found 0, expected 1 to 1024"),
        (r#"{"tls": {"key_file": "k"}}"#, "found tls.key_file without tls.cert_file, expected both"),
        (r#"{"network": {"https_port": 0}}"#, "found network.https_port without tls.cert_file"),
        (r#"{"cluster": {"write_acks": 3}}"#, "found 3 write_acks, expected 1 to 2"),
    ] {
        assert!(mistake(file).contains(expected), "{}", mistake(file));
    }
}

#[test]
fn contradictions_are_shown_at_the_key_that_had_the_last_word() {
    let low = Given::file(r#"{"memory": {"low_watermark": 0.9}}"#)
        .with_variable("ELCACHE__MEMORY__HIGH_WATERMARK", "0.9");
    let expected = "ELCACHE__MEMORY__HIGH_WATERMARK: memory.high_watermark: found memory.low_watermark 0.9 and \
                    memory.high_watermark 0.9, expected the low one to be lower";
    assert_eq!(low.mistakes(), [expected]);
    let ports = Given::flags(&["-p", "7890"]).mistakes();
    let expected = "--port: network.http_port: found 7890 for network.http_port and network.cluster_port, \
                    expected two ports";
    assert_eq!(ports, [expected]);
}

#[test]
fn free_ports_do_not_collide() {
    Given::file(r#"{"network": {"http_port": 0, "cluster_port": 0}}"#).config();
}

#[test]
fn what_follows_from_an_unreadable_value_is_not_reported() {
    let found = mistake(r#"{"memory": {"low_watermark": 0.97, "high_watermark": "high"}}"#);
    assert!(found.contains("found \"high\", expected a number"), "{found}");
}

#[test]
fn unknown_keys_get_a_hint() {
    for (file, expected) in [
        (r#"{"memry": {"max_size": 1}}"#, "e.json:1:2: memry: unknown key, did you mean memory?"),
        (r#"{"max_size": 1}"#, "max_size: unknown key, did you mean memory.max_size or disk.max_size?"),
        (r#"{"log": {"colour": 1}}"#, "log.colour: unknown key, expected one of format, level"),
        (r#"{"log.level": "info"}"#, r#"unknown key, expected sections as objects, such as {"log": {...}}"#),
        (
            r#"{"log": {"level": "info", "level": "warn"}}"#,
            "e.json:1:27: log.level: stands twice, expected once",
        ),
        (r#"{"quotas": [{"prefix": "", "bytes": 1, "bytes": 2}]}"#, "quotas[0].bytes: stands twice"),
    ] {
        assert!(mistake(file).contains(expected), "{}", mistake(file));
    }
}

#[test]
fn unknown_variables_get_a_hint() {
    for (name, expected) in [
        ("ELCACHE__MEMORY__MAXSIZE", "the variable names no key, did you mean ELCACHE__MEMORY__MAX_SIZE?"),
        ("ELCACHE__log__level", "the variable names no key, did you mean ELCACHE__LOG__LEVEL?"),
        (
            "ELCACHE__MEMORY",
            "the variable names a section, expected ELCACHE__MEMORY__ and one of MAX_SIZE, HIGH_W",
        ),
        (
            "ELCACHE__CACHE__COLOUR",
            "the variable names no key, expected ELCACHE__ and one of NODE_NAME, MEMORY",
        ),
        ("ELCACHE__", "the variable names no key, expected ELCACHE__ and one of NODE_NAME, MEMORY"),
    ] {
        let mistakes = Given::variable(name, "1").mistakes();
        assert!(mistakes.concat().starts_with(&format!("{name}: {expected}")), "{mistakes:?}");
    }
}

#[test]
fn broken_json_is_placed_and_does_not_hide_the_other_layers() {
    let mistakes = Given::file("{\n  \"log\": {\"level\" 5}\n}").with_flags(&["-p", "x"]).mistakes();
    assert_eq!(mistakes.len(), 2, "{mistakes:?}");
    assert!(mistakes.concat().starts_with("e.json:2:19: this is no JSON: Expected colon"), "{mistakes:?}");
    for text in ["{a: 1}", "{'a': 1}", "{\"a\": 0x1}", "{\"a\": 1 \"b\": 2}", "{} {}", "{", "\"", "NaN"] {
        assert!(mistake(text).contains("this is no JSON"), "{text}");
    }
}

#[test]
fn columns_count_characters() {
    assert!(mistake("{/* größer → */ \"lgo\": 1}").starts_with("e.json:1:17: lgo: unknown key"));
}

#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    let given = Given::flags(&["-c", "absent.json"]);
    let read = |_: &Path| Err(io::Error::from(io::ErrorKind::PermissionDenied));
    let errors = Config::load(&given.args, [], &read).expect_err("nothing can be read");
    assert_eq!(errors.to_string(), "absent.json: cannot be read: permission denied");
}

#[test]
fn secrets_are_never_repeated() {
    let file = r#"{
        "auth": {"tokens_file": ["hunter2"]},
        "cluster": {"secret_file": 31337, "secret": "hunter2"},
        "tls": {"key_file": {"hunter2": "31337"}}
    }"#;
    let mistakes = Given::file(file).mistakes();
    assert_eq!(mistakes.len(), 4, "{mistakes:#?}");
    let text = mistakes.join("\n");
    assert!(!text.contains("hunter2") && !text.contains("31337"), "{text}");
}

#[cfg(unix)]
#[test]
fn variables_that_are_no_text_are_named() {
    use std::os::unix::ffi::OsStringExt;

    let bytes = OsString::from_vec(vec![0xff]);
    let given = Given { variables: vec![("ELCACHE__NODE_NAME".into(), bytes)], ..Given::default() };
    let expected = "ELCACHE__NODE_NAME: node_name: found bytes that are no text, expected UTF-8";
    assert_eq!(given.mistakes(), [expected]);
}

#[test]
fn long_values_are_cut_in_messages() {
    let found = mistake(&format!(r#"{{"log": {{"level": "{}"}}}}"#, "é".repeat(10_000)));
    assert!(found.len() < 300, "{}", found.len());
}
