//! Answers as text with tabs, for people and for `cut` and `awk`.

use std::fmt::Write;

use serde_json::Value;

/// An object, a field a line. Fields of objects inside it are named with a dot.
pub(super) fn fields(value: &Value) -> String {
    let mut out = String::new();
    add(&mut out, "", value);
    out
}

fn add(out: &mut String, name: &str, value: &Value) {
    let Value::Object(all) = value else {
        if !name.is_empty() {
            let _ = writeln!(out, "{name}\t{}", cell(value));
        }
        return;
    };
    for (key, value) in all {
        let name = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
        add(out, &name, value);
    }
}

/// One line of a table.
pub(super) fn row(value: &Value, columns: &[&str]) -> String {
    let cells: Vec<String> = columns.iter().map(|column| cell(&value[*column])).collect();
    cells.join("\t") + "\n"
}

/// A value without anything that would break the table or move the cursor of a terminal.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) if text.is_empty() => "-".into(),
        Value::String(text) => text.chars().flat_map(visible).collect(),
        Value::Array(all) if all.is_empty() => "-".into(),
        Value::Array(all) => all.iter().map(cell).collect::<Vec<_>>().join("; "),
        other => other.to_string(),
    }
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_keeps_its_columns_whatever_is_in_it() {
        let value = json!({ "user": "a\tb\n\u{1b}[31m", "device": null, "idle_ms": 7, "x": [] });
        let line = row(&value, &["user", "device", "idle_ms", "x", "nothing"]);
        assert_eq!(line, "a\\tb\\n\\u{1b}[31m\t-\t7\t-\t-\n");
    }

    #[test]
    fn an_object_is_told_field_by_field() {
        let value =
            json!({ "kicked": 2, "block": { "user": "a", "until": null }, "r": ["x", "y"] });
        assert_eq!(fields(&value), "block.until\t-\nblock.user\ta\nkicked\t2\nr\tx; y\n");
        assert_eq!(fields(&Value::Null), "");
    }
}
