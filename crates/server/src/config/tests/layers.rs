//! Precedence, the forms of values, notices, reloading.

use std::net::IpAddr;
use std::time::Duration;

use super::*;

#[test]
fn nothing_given_is_the_defaults_without_a_word() {
    let loaded = Given::default().loaded();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn the_defaults_are_valid() {
    assert_eq!(Config::default().validate(), []);
}

#[test]
fn each_layer_beats_those_before_it() {
    let file = Given::file(r#"{"network": {"http_port": 1001}, "memory": {"max_size": "64M"}}"#);
    assert_eq!(file.clone().config().network.http_port, 1001);
    let variable = file.with_variable("ELCACHE__NETWORK__HTTP_PORT", "1002");
    assert_eq!(variable.clone().config().network.http_port, 1002);
    let flag = variable.with_flags(&["-p", "1003"]).loaded();
    assert_eq!(flag.config.network.http_port, 1003);
    assert_eq!(flag.config.memory.max_size, Size::mib(64));
    assert_eq!(flag.place("network.http_port"), &Place::Flag("--port"));
    assert_eq!(flag.place("memory.max_size").to_string(), "e.json:1:57");
    assert_eq!(flag.place("log.level"), &Place::Default);
}

#[test]
fn every_flag_sets_its_key() {
    let config = Given::flags(&[
        "-p",
        "0",
        "-m",
        "256",
        "-d",
        "/a,b",
        "-D",
        "7",
        "-u",
        "/s",
        "-s",
        "a:1",
        "-s",
        "b:2",
        "--log-format",
        "json",
        "--log-level",
        "debug",
    ])
    .config();
    assert_eq!(config.network.http_port, 0);
    assert_eq!(config.memory.max_size, Size::mib(256));
    assert_eq!(config.disk.path.0, [Directory { path: "/a,b".into(), max_size: None }]);
    assert_eq!(config.disk.max_size, Size::gib(7));
    assert_eq!(config.network.unix_socket_path.0, PathBuf::from("/s"));
    assert_eq!(config.cluster.seed_nodes.len(), 2);
    assert_eq!((config.log.format, config.log.level), (LogFormat::Json, LogLevel::Debug));
}

#[test]
fn sizes_of_flags_take_suffixes() {
    for (text, size) in [("512M", Size::mib(512)), ("4G", Size::gib(4)), ("1.5GiB", Size::mib(1536))] {
        assert_eq!(Given::flags(&["-m", text]).config().memory.max_size, size, "{text}");
    }
    assert_eq!(Given::flags(&["-D", "512M"]).config().disk.max_size, Size::mib(512));
}

#[test]
fn seeds_of_flags_replace_those_of_the_file() {
    let given = Given::file(r#"{"cluster": {"seed_nodes": ["a:1", "b:2"]}}"#).with_flags(&["-s", "c:3"]);
    assert_eq!(given.config().cluster.seed_nodes, [HostPort { host: "c".to_owned(), port: 3 }]);
}

#[test]
fn variables_need_no_quotes() {
    let config = Given::variable("ELCACHE__DISK__USE_DIRECT_IO", "false")
        .with_variable("ELCACHE__HTTP__CORS_ORIGINS", "https://a.example, https://b.example")
        .with_variable("ELCACHE__LIMITS__IDLE_TIMEOUT", "5m")
        .with_variable("ELCACHE__NODE_NAME", "one")
        .with_variable("ELCACHE__NETWORK__BIND_ADDRESS", "::1")
        .with_variable("ELCACHE__PERFORMANCE__WORKER_THREADS", "3")
        .with_variable("PATH", "/bin")
        .config();
    assert!(!config.disk.use_direct_io);
    assert_eq!(config.http.cors_origins, ["https://a.example", "https://b.example"]);
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.node_name.as_deref(), Some("one"));
    assert_eq!(config.network.bind_address, IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]));
    assert_eq!(config.performance.worker_threads, Auto::Fixed(3));
}

#[test]
fn variables_take_lists_of_objects_as_json_and_null() {
    let config = Given::file(r#"{"node_name": "two"}"#)
        .with_variable("ELCACHE__QUOTAS", r#"[{"prefix": "a/", "bytes": "1G"}]"#)
        .with_variable("ELCACHE__NODE_NAME", "null")
        .config();
    assert_eq!(config.quotas, [Quota { prefix: "a/".to_owned(), bytes: Some(Size::gib(1)), entries: None }]);
    assert_eq!(config.node_name, None);
}

#[test]
fn directories_are_a_path_or_a_list_with_sizes() {
    let given = Given::file(r#"{"disk": {"path": ["/a", {"path": "/b", "max_size": "1T"}]}}"#);
    let expected = [
        Directory { path: "/a".into(), max_size: None },
        Directory { path: "/b".into(), max_size: Some(Size::tib(1)) },
    ];
    assert_eq!(given.config().disk.path.0, expected);
}

#[test]
fn comments_trailing_commas_and_emptiness_are_fine() {
    for text in ["", "// nothing\n", "{}", "\u{feff}{}", "{/* a */ \"log\": {\"level\": \"info\",},}"] {
        assert_eq!(Given::file(text).config(), Config::default(), "{text:?}");
    }
}

#[test]
fn what_is_not_available_yet_is_said_once_for_each_key() {
    let loaded = Given::file(r#"{"cluster": {"zone": "b"}}"#)
        .with_variable("ELCACHE__CLUSTER__CLUSTER_NAME", "other")
        .with_variable("ELCACHE__NETWORK__CLUSTER_PORT", "7891")
        .with_flags(&["-d", "/d", "-D", "5", "-u", "/s", "-s", "a:1"])
        .loaded();
    let places: Vec<_> = loaded.notices.iter().filter_map(|notice| notice.split(": ").next()).collect();
    let expected =
        ["ELCACHE__NETWORK__CLUSTER_PORT", "ELCACHE__CLUSTER__CLUSTER_NAME", "--seed", "e.json:1:22"];
    assert_eq!(places, expected);
    assert!(loaded.notices.iter().all(|notice| notice.contains("not available yet")), "{:?}", loaded.notices);
}

#[test]
fn defaults_spelt_out_and_a_disk_turned_off_need_no_notice() {
    for flags in [["-D", "0"], ["-D", "100"], ["-d", "/var/cache/elcache"], ["-p", "81"]] {
        let notices = Given::flags(&flags).loaded().notices;
        assert!(notices.is_empty(), "{flags:?}: {notices:?}");
    }
}

#[test]
fn a_socket_has_a_path_or_there_is_none() {
    for off in [Given::flags(&["-u", ""]), Given::file(r#"{"network": {"unix_socket_path": ""}}"#)] {
        assert!(off.config().network.unix_socket_path.is_off());
    }
    assert!(!Given::default().config().network.unix_socket_path.is_off());
    let off = Given::variable("ELCACHE__NETWORK__UNIX_SOCKET_PATH", "").config();
    assert!(off.network.unix_socket_path.is_off());
}

#[test]
fn a_reload_takes_what_is_live_and_names_the_rest_each_time() {
    let running = Given::default().config();
    let loaded = Given::flags(&["-p", "81", "-d", "/d", "--log-level", "warn"]).config();
    let first = Reload::compare(&running, &loaded);
    assert_eq!((first.live, first.restart), (vec!["log.level"], vec!["disk.path", "network.http_port"]));
    assert_eq!((first.config.log.level, first.config.network.http_port), (LogLevel::Warn, 8080));
    let second = Reload::compare(&first.config, &loaded);
    assert_eq!((second.live, second.restart), (vec![], vec!["disk.path", "network.http_port"]));
}

#[test]
fn what_is_printed_shows_every_section() {
    let text = Config::default().to_json();
    for shown in
        ["\"max_size\": \"1GiB\"", "\"http_port\": 8080", "\"node_name\": null", "\"upload_ttl\": \"1d\""]
    {
        assert!(text.contains(shown), "{shown} is not in\n{text}");
    }
}
