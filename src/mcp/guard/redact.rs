//! Arguments as the audit keeps them: what names tables, columns and options stays, what may hold people's data goes;
//! a digest tells whether two calls asked the same.

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::mcp::cursor::hex;
use crate::mcp::view::{Object, shortened};

/// Arguments whose text is kept as its length alone.
const HIDDEN: [&str; 4] = ["query", "contains", "key_equals", "cursor"];
/// Arguments that are SQL, of which the literals are hidden.
const SQL: [&str; 2] = ["sql", "filter"];
/// Characters kept of one argument.
const KEPT_CHARS: usize = 1000;
/// Arguments kept of one call: no tool has as many, a forged call may.
const KEPT_ARGUMENTS: usize = 32;

/// What is kept of `arguments`.
pub(super) fn redacted(arguments: &Object) -> Object {
    let kept = arguments.iter().take(KEPT_ARGUMENTS).map(|(name, value)| {
        let value = match value {
            Value::String(text) if HIDDEN.contains(&name.as_str()) => format!("<{} characters>", text.chars().count()),
            Value::String(text) if SQL.contains(&name.as_str()) => shortened(&without_literals(text), KEPT_CHARS),
            Value::String(text) => shortened(text, KEPT_CHARS),
            Value::Null | Value::Bool(_) | Value::Number(_) => return (shortened(name, KEPT_CHARS), value.clone()),
            _ if HIDDEN.contains(&name.as_str()) || SQL.contains(&name.as_str()) => "<no text>".to_owned(),
            value => shortened(&value.to_string(), KEPT_CHARS),
        };
        (shortened(name, KEPT_CHARS), value.into())
    });
    kept.collect()
}

/// SHA-256 of the arguments with sorted names.
pub(super) fn digest(arguments: &Object) -> String {
    hex(Sha256::digest(sorted(&Value::Object(arguments.clone())).to_string()))
}

fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut members: Vec<_> = object.iter().map(|(name, value)| (name.clone(), sorted(value))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(members.into_iter().collect())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        value => value.clone(),
    }
}

/// A statement with `?` for each literal text and number, and without comments. A quoted name stays.
fn without_literals(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let in_word = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let length = match c {
            '\'' => {
                out.push('?');
                quoted(rest, '\'')
            }
            '"' => {
                let length = quoted(rest, '"');
                out.push_str(&rest[..length]);
                length
            }
            '$' if rest[1..]
                .split('$')
                .next()
                .is_some_and(|tag| tag.len() < 20 && rest[1 + tag.len()..].starts_with('$')) =>
            {
                let tag = &rest[..rest[1..].find('$').map_or(1, |at| at + 2)];
                out.push('?');
                rest[tag.len()..].find(tag).map_or(rest.len(), |at| at + 2 * tag.len())
            }
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |at| at + 2),
            '0'..='9' if !in_word => {
                out.push('?');
                rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len())
            }
            c => {
                out.push(c);
                c.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    out
}

/// The length of a quoted text, its quotes included; a doubled quote stands for one.
fn quoted(text: &str, quote: char) -> usize {
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote && chars.next_if(|(_, next)| *next == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn literals_and_comments_are_hidden_and_names_stay() {
        for (sql, kept) in [
            ("SELECT a1 FROM t WHERE mail = 'a@b.c' AND n > 17.5e3", "SELECT a1 FROM t WHERE mail = ? AND n > ?"),
            ("SELECT 'it''s', \"my \"\"col\" -- secret\nFROM t /* x */", "SELECT ?, \"my \"\"col\" \nFROM t "),
            ("SELECT $$secret$$, $x$a$$b$x$, 0x1F", "SELECT ?, ?, ?"),
            ("SELECT 'open", "SELECT ?"),
            ("SELECT \"o$s\", 'é'é", "SELECT \"o$s\", ?é"),
        ] {
            assert_eq!(without_literals(sql), kept);
        }
    }

    #[test]
    fn what_may_be_data_is_not_kept_and_the_digest_tells_calls_apart() {
        let object = |value: Value| value.as_object().unwrap().clone();
        let arguments =
            object(json!({"query": "alice@example.com", "limit": 3, "sources": ["shop.orders"], "contains": ["x"]}));
        let kept = Value::Object(redacted(&arguments));
        let expected =
            json!({"query": "<17 characters>", "limit": 3, "sources": "[\"shop.orders\"]", "contains": "<no text>"});
        assert_eq!(kept, expected);
        let digest = |value: Value| digest(&object(value));
        assert_eq!(digest(json!({"a": 1, "b": {"x": 1, "y": 2}})), digest(json!({"b": {"y": 2, "x": 1}, "a": 1})));
        assert_ne!(digest(json!({"a": 1})), digest(json!({"a": 2})));
    }
}
