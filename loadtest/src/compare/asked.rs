//! What the fleets of two runs were asked to do, key by key.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// In what they differ, one line for each key. Where one of them says nothing, nothing does.
pub(super) fn differences(before: &[Value], after: &[Value]) -> Vec<String> {
    if before.is_empty() || after.is_empty() {
        return Vec::new();
    }
    if before.len() != after.len() {
        return vec![format!(
            "the number of fleets is {} before, {} after",
            before.len(),
            after.len()
        )];
    }
    let mut all = Vec::new();
    for (number, (before, after)) in (1..).zip(before.iter().zip(after)) {
        let (before, after) = (flat(before), flat(after));
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let (old, new) = (before.get(key), after.get(key));
            if old != new {
                let show = |value: Option<&String>| value.map_or("none", String::as_str).to_owned();
                all.push(format!(
                    "the {key} of fleet {number} is {} before, {} after",
                    show(old),
                    show(new)
                ));
            }
        }
    }
    all
}

/// Every value that is not a table, by its path: `work.traffic.payload_bytes.end`. A number is the same
/// whether or not it is written with a point.
fn flat(value: &Value) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    add("", value, &mut all);
    all
}

fn add(path: &str, value: &Value, to: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                add(&path, value, to);
            }
        }
        value => {
            let shown =
                value.as_f64().map_or_else(|| value.to_string(), |number| number.to_string());
            to.insert(path.to_owned(), shown);
        }
    }
}
