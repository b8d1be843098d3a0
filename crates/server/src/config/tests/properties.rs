//! What holds for every input.

use proptest::prelude::*;

use super::super::schema::{self, KEYS};
use super::*;

/// A value of any JSON shape, mostly of shapes that keys take.
fn any_value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|value| value.to_string()),
        any::<i64>().prop_map(|value| value.to_string()),
        any::<u16>().prop_map(|value| value.to_string()),
        (0.0..2.0).prop_map(|value: f64| value.to_string()),
        "\"(auto|all|none|json|/a|\\*|[0-9]{1,3}[smhdKMGTi]{0,2}B?|[a-z]{1,5}:[0-9]{1,5}|[a-z\\\\n\"]{0,4})\"",
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = "(path|max_size|prefix|bytes|entries|[a-z]{0,3})";
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((name, inner), 0..4).prop_map(|members| {
                let members = members.iter().map(|(name, value)| format!("\"{name}\": {value}"));
                format!("{{{}}}", members.collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

fn nested(key: &str, value: &str) -> String {
    match key.split_once('.') {
        Some((section, name)) => format!(r#"{{"{section}": {{"{name}": {value}}}}}"#),
        None => format!(r#"{{"{key}": {value}}}"#),
    }
}

/// Every mistake says where it is, and what it is about.
fn assert_told(errors: &ConfigErrors) {
    for error in errors.iter() {
        assert!(error.place != Place::Default, "{error}");
        assert!(!error.problem.is_empty() && !error.to_string().contains(char::is_control), "{error:?}");
    }
    assert!(errors.iter().next().is_some());
}

proptest! {
    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,60}|[\\[\\]{}\",:/* \n0-9a-z]{0,60}") {
        if let Err(errors) = Given::file(text).load() {
            assert_told(&errors);
        }
    }

    #[test]
    fn no_bytes_in_a_variable_make_the_loader_panic(index in 0..KEYS.len(), text in "\\PC{0,40}|[\\[{][\\PC]{0,20}") {
        if let Err(errors) = Given::variable(&schema::variable(KEYS[index].path), &text).load() {
            assert_told(&errors);
        }
    }

    #[test]
    fn no_name_of_a_variable_makes_the_loader_panic(name in "ELCACHE__\\PC{0,40}|ELCACHE__[A-Z_]{0,40}") {
        if let Err(errors) = Given::variable(&name, "1").load() {
            assert_told(&errors);
        }
    }

    #[test]
    fn any_value_at_any_key_is_taken_or_told(index in 0..KEYS.len(), value in any_value()) {
        match Given::file(nested(KEYS[index].path, &value)).load() {
            Ok(loaded) => {
                prop_assert_eq!(loaded.config.validate(), []);
                prop_assert_eq!(Given::file(loaded.config.to_json()).config(), loaded.config);
            }
            Err(errors) => assert_told(&errors),
        }
    }

    #[test]
    fn a_cut_off_file_is_told(end in 1_usize..6000) {
        let example = include_str!("../../../../../config/elcache.json.example");
        let cut: String = example.chars().take(end).collect();
        if let Err(errors) = Given::file(cut).load() {
            assert_told(&errors);
        }
    }

    #[test]
    fn deep_nesting_is_told(depth in 1_usize..2000, open in "[\\[{]") {
        let text = if open == "[" { "[".repeat(depth) } else { "{\"a\":".repeat(depth) };
        assert_told(&Given::file(text).load().expect_err("it never closes"));
    }
}
