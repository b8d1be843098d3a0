//! The configuration as JSON, in the form in which it can be loaded again.

use serde_json::{Map, Value as Json};

use super::schema::KEYS;
use super::sections::Config;

impl Config {
    /// Pretty-printed, every key with its value, in the order of the documentation.
    pub fn to_json(&self) -> String {
        let mut root = Map::new();
        for key in KEYS {
            insert(&mut root, key.path, (key.json)(self));
        }
        format!("{:#}", Json::Object(root))
    }
}

fn insert(root: &mut Map<String, Json>, path: &str, value: Json) {
    let Some((section, name)) = path.split_once('.') else {
        root.insert(path.to_owned(), value);
        return;
    };
    let section = root.entry(section).or_insert_with(|| Json::Object(Map::new()));
    if let Json::Object(members) = section {
        members.insert(name.to_owned(), value);
    }
}
