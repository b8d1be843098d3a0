//! The key table, the example file and the documentation agree.

use super::super::schema::{Availability, Change, KEYS, Key};
use super::*;

const EXAMPLE: &str = include_str!("../../../../../config/elcache.json.example");
const DOCUMENTATION: &str = include_str!("../../../../../docs/configuration.md");

/// A row of a table of keys: key, type, default, reload, now, meaning.
struct Row<'a> {
    key: &'a str,
    default: &'a str,
    reload: &'a str,
    now: &'a str,
    meaning: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let keys = DOCUMENTATION.split_once("## Keys").expect("there is a section of keys").1;
    let rows = keys.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| match line.trim_matches('|').split(" | ").map(str::trim).collect::<Vec<_>>().as_slice() {
        [key, _, default, reload, now, meaning] => {
            Row { key: key.trim_matches('`'), default: default.trim_matches('`'), reload, now, meaning }
        }
        _ => panic!("not six columns: {line}"),
    })
    .collect()
}

fn paths() -> Vec<&'static str> {
    KEYS.iter().map(|key| key.path).collect()
}

fn row_of(key: &Key) -> Row<'static> {
    rows().into_iter().find(|row| row.key == key.path).expect("every key has a row")
}

#[test]
fn the_documentation_has_a_row_for_every_key_and_no_other() {
    let documented: Vec<_> = rows().iter().map(|row| row.key).collect();
    assert_eq!(documented, paths());
    assert!(rows().iter().all(|row| !row.meaning.is_empty()));
}

#[test]
fn the_documentation_states_the_defaults() {
    for key in KEYS {
        let mut config = Config::default();
        let written: serde_json::Value =
            serde_json::from_str(row_of(key).default).expect("defaults are JSON");
        (key.read)(&mut config, &node_of(&written)).expect("the default is readable");
        assert_eq!(config, Config::default(), "{}", key.path);
    }
}

/// A single value, by way of a variable: those take JSON without quotes.
fn node_of(value: &serde_json::Value) -> super::super::node::Node {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    super::super::node::Node::text_at(text.trim_matches(['[', ']']), Place::Default)
}

#[test]
fn the_documentation_states_what_reloads_and_what_is_there() {
    for key in KEYS {
        let row = row_of(key);
        assert_eq!(row.reload, if key.change == Change::Live { "live" } else { "restart" }, "{}", key.path);
        assert_eq!(row.now, if key.availability == Availability::Now { "yes" } else { "no" }, "{}", key.path);
    }
}

#[test]
fn the_example_parses_and_equals_the_defaults() {
    let loaded = Given::file(EXAMPLE).loaded();
    assert_eq!(loaded.config, Config::default());
    assert!(loaded.notices.is_empty(), "{:?}", loaded.notices);
}

#[test]
fn the_example_has_every_key() {
    let loaded = Given::file(EXAMPLE).loaded();
    for path in paths() {
        assert_ne!(loaded.place(path), &Place::Default, "{path}");
    }
}

#[test]
fn the_messages_in_the_documentation_are_real() {
    let file = "{\n  \"memory\": {\n    \"max_size\": \"lots\",\n    \"hihg_watermark\": 0.9\n  },\n  \"log\": {\n    \
                \"format\": \"jsno\"\n  }\n}";
    let given = Given::file(file).with_variable("ELCACHE__NETWORK__PROT", "1").with_flags(&["-p", "80800"]);
    let told = given.load().expect_err("there are mistakes").to_string().replace("e.json", "elcache.json");
    assert!(DOCUMENTATION.contains(&format!("```\nelcached: {told}\n```")), "{told}");
}

#[test]
fn keys_are_named_once_and_variables_lead_back_to_them() {
    for (index, key) in KEYS.iter().enumerate() {
        assert!(KEYS.iter().skip(index + 1).all(|other| other.path != key.path), "{}", key.path);
        assert!(key.path.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)), "{}", key.path);
        assert!(!key.path.contains("__"), "{}", key.path);
    }
}
