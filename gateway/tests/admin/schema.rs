//! Whether a value is what a schema of the description says: as much of JSON Schema as it uses.

use serde_json::Value;

/// What is wrong with the value; nothing if all is right. Fields that are not described are wrong.
pub(crate) fn check(api: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let pointer = name.strip_prefix('#').unwrap();
        return check(api, api.pointer(pointer).unwrap(), value, at);
    }
    if let Some(ways) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let good = ways.iter().any(|way| check(api, way, value, at).is_empty());
        return if good { vec![] } else { vec![format!("{at}: {value} is none of {ways:?}")] };
    }
    let mut wrong = Vec::new();
    let types = match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        other => panic!("{at}: a schema without a type: {other} in {schema}"),
    };
    if !types.iter().any(|name| is_type(name, value)) {
        wrong.push(format!("{at}: {value} is not {types:?}"));
    }
    if let Some(words) = schema["enum"].as_array()
        && !words.contains(value)
    {
        wrong.push(format!("{at}: {value} is not one of {words:?}"));
    }
    if let Some(object) = value.as_object() {
        for name in schema["required"].as_array().into_iter().flatten() {
            if !object.contains_key(name.as_str().unwrap()) {
                wrong.push(format!("{at}: {name} is missing"));
            }
        }
        for (name, field) in object {
            let at = format!("{at}.{name}");
            match (&schema["properties"][name], &schema["additionalProperties"]) {
                (Value::Null, Value::Null) => wrong.push(format!("{at}: not described")),
                (Value::Null, rest) => wrong.extend(check(api, rest, field, &at)),
                (known, _) => wrong.extend(check(api, known, field, &at)),
            }
        }
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        wrong.extend(check(api, &schema["items"], item, &format!("{at}[{index}]")));
    }
    wrong
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("a type {other}"),
    }
}
