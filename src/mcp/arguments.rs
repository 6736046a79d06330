//! Arguments against a tool's own schema: unknown names, wrong types and values are refused in words that say what is
//! right. The schemas use `object`, `array`, `string`, `integer` and `boolean`, `enum`, `minimum` and `maximum` alone.

use serde_json::Value;

use super::tools::nearest;
use super::view::{Object, Refused};

/// `arguments` as the tool takes them. Models write numbers and lists as text now and then: what can only mean one
/// thing is taken so, and null is as good as nothing.
///
/// # Errors
/// The first that is wrong.
pub(super) fn check(schema: &Value, arguments: Object) -> Result<Object, Refused> {
    let empty = Object::new();
    let properties = schema["properties"].as_object().unwrap_or(&empty);
    let names: Vec<&str> = properties.keys().map(String::as_str).collect();
    let mut checked = Object::new();
    for (name, value) in arguments {
        let Some(property) = properties.get(&name) else {
            let near = nearest(&name, names.iter().copied());
            return Err(Refused::new("unknown_argument", format!("there is no argument `{name}`"))
                .field(&name)
                .allowed(names)
                .did_you_mean(near)
                .next("leave it out, or use the nearest one that there is"));
        };
        if value.is_null() {
            continue;
        }
        let value = convert(&name, property, value)?;
        checked.insert(name, value);
    }
    let missing = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    if let Some(name) = missing.into_iter().find(|name| !checked.contains_key(*name)) {
        let what = properties[name]["description"].as_str().unwrap_or_default();
        return Err(Refused::new("missing_argument", format!("the argument `{name}` is missing: {what}")).field(name));
    }
    Ok(checked)
}

fn convert(name: &str, property: &Value, value: Value) -> Result<Value, Refused> {
    let kind = property["type"].as_str().unwrap_or_default();
    let wrong = |value: &Value| {
        let is = match value {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        Refused::new("wrong_type", format!("the argument `{name}` is {is}, and must be of type {kind}")).field(name)
    };
    match (kind, value) {
        ("string", Value::String(text)) => one_of(name, property, text),
        ("string", Value::Number(number)) => one_of(name, property, number.to_string()),
        ("integer", value) => {
            let number = value.as_i64().or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()));
            let number = number.or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64));
            bounded(name, property, number.ok_or_else(|| wrong(&value))?)
        }
        ("boolean", Value::Bool(value)) => Ok(value.into()),
        ("boolean", Value::String(text)) if ["true", "false"].contains(&text.as_str()) => Ok((text == "true").into()),
        ("array", Value::String(text)) => match serde_json::from_str(&text) {
            Ok(Value::Array(items)) => list(name, property, items),
            _ => list(name, property, vec![text.into()]),
        },
        ("array", Value::Array(items)) => list(name, property, items),
        (_, value) => Err(wrong(&value)),
    }
}

fn one_of(name: &str, property: &Value, text: String) -> Result<Value, Refused> {
    let Some(words) = property["enum"].as_array() else { return Ok(text.into()) };
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    if words.contains(&text.as_str()) {
        return Ok(text.into());
    }
    let near = nearest(&text, words.iter().copied());
    let refused = Refused::new("wrong_value", format!("the argument `{name}` cannot be `{text}`")).field(name);
    Err(refused.allowed(words).did_you_mean(near))
}

fn bounded(name: &str, property: &Value, number: i64) -> Result<Value, Refused> {
    let least = property["minimum"].as_i64().unwrap_or(i64::MIN);
    let most = property["maximum"].as_i64().unwrap_or(i64::MAX);
    if (least..=most).contains(&number) {
        return Ok(number.into());
    }
    let range = match (property["minimum"].as_i64(), property["maximum"].as_i64()) {
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("{least} or more"),
        (_, most) => format!("{} or less", most.unwrap_or_default()),
    };
    Err(Refused::new("out_of_range", format!("the argument `{name}` is {number}, and may be {range}"))
        .field(name)
        .allowed([range]))
}

fn list(name: &str, property: &Value, items: Vec<Value>) -> Result<Value, Refused> {
    let most = property["maxItems"].as_u64().unwrap_or(u64::MAX);
    if items.len() as u64 > most {
        let text = format!("the argument `{name}` has {} items, and may have {most}", items.len());
        return Err(Refused::new("out_of_range", text).field(name).next("ask in several calls"));
    }
    let convert = |item| convert(name, &property["items"], item);
    Ok(items.into_iter().map(convert).collect::<Result<Vec<_>, _>>()?.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({"type": "object", "required": ["sql"], "properties": {
            "sql": {"type": "string", "description": "a statement"},
            "max_rows": {"type": "integer", "minimum": 1, "maximum": 10},
            "mode": {"type": "string", "enum": ["fresh", "committed"]},
            "names": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
            "hot": {"type": "boolean"},
        }})
    }

    fn ask(arguments: Value) -> Result<Value, Value> {
        let Value::Object(arguments) = arguments else { panic!("an object") };
        check(&schema(), arguments).map(Value::Object).map_err(|refused| refused.view())
    }

    #[test]
    fn what_means_one_thing_is_taken() {
        for (given, taken) in [
            (json!({"sql": "a"}), json!({"sql": "a"})),
            (json!({"sql": "a", "max_rows": "7", "mode": null}), json!({"sql": "a", "max_rows": 7})),
            (json!({"sql": 7, "max_rows": 7.0}), json!({"sql": "7", "max_rows": 7})),
            (json!({"sql": "a", "names": "x", "hot": "true"}), json!({"sql": "a", "names": ["x"], "hot": true})),
            (json!({"sql": "a", "names": "[\"x\", \"y\"]"}), json!({"sql": "a", "names": ["x", "y"]})),
        ] {
            assert_eq!(ask(given), Ok(taken));
        }
    }

    #[test]
    fn refusals_say_what_is_right() {
        for (given, code, field, hint) in [
            (json!({}), "missing_argument", "sql", "a statement"),
            (json!({"sql": null}), "missing_argument", "sql", "a statement"),
            (json!({"sql": "a", "maxrows": 7}), "unknown_argument", "maxrows", "\"did_you_mean\":[\"max_rows\""),
            (json!({"sql": "a", "max_rows": 11}), "out_of_range", "max_rows", "1 to 10"),
            (json!({"sql": "a", "max_rows": "many"}), "wrong_type", "max_rows", "integer"),
            (json!({"sql": "a", "max_rows": 1.5}), "wrong_type", "max_rows", "integer"),
            (json!({"sql": ["a"]}), "wrong_type", "sql", "a list"),
            (json!({"sql": "a", "mode": "commited"}), "wrong_value", "mode", "\"did_you_mean\":[\"committed\""),
            (json!({"sql": "a", "names": ["a", "b", "c"]}), "out_of_range", "names", "may have 2"),
            (json!({"sql": "a", "hot": 1}), "wrong_type", "hot", "boolean"),
        ] {
            let refused = ask(given.clone()).unwrap_err();
            assert_eq!((refused["code"].as_str(), refused["field"].as_str()), (Some(code), Some(field)), "{given}");
            assert!(refused.to_string().contains(hint), "{given}: {refused}");
        }
    }
}
