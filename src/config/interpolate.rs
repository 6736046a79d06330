//! `${NAME}`, `${NAME:-default}` and `${file:/path}` inside the strings of a YAML document. What comes in is text and
//! stays text: it is never read as YAML, so that no value can add settings. Keys are left alone.

use std::path::Path;

use yaml_serde::Value;

use crate::error::{Error, Result};

/// Looks up an environment variable.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces the placeholders in all strings of `value`; `path` is its dotted key, for messages.
///
/// A string that consists of one placeholder and comes out empty is null: the setting counts as not written.
/// `$${` stands for a plain `${`.
///
/// # Errors
/// `InvalidConfig` for an unset variable without a default, an unreadable file, or a malformed placeholder.
pub(super) fn interpolate(value: &mut Value, path: &str, env: Env) -> Result<()> {
    match value {
        Value::String(text) if text.contains("${") => {
            let replaced =
                expand(text, env).map_err(|problem| Error::invalid_config(format!("setting `{path}`: {problem}")))?;
            *value = if replaced.is_empty() { Value::Null } else { Value::String(replaced) };
        }
        Value::Sequence(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(item, &format!("{path}[{index}]"), env)?;
            }
        }
        Value::Mapping(entries) => {
            for (key, item) in entries.iter_mut() {
                let name = key.as_str().map_or_else(|| "?".to_owned(), str::to_owned);
                let dotted = if path.is_empty() { name } else { format!("{path}.{name}") };
                interpolate(item, &dotted, env)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn expand(text: &str, env: Env) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(escaped) = rest[..at].strip_suffix('$') {
            expanded.push_str(escaped);
            expanded.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        expanded.push_str(&rest[..at]);
        let end = rest[at..].find('}').ok_or("a placeholder `${` has no `}`; write `$${` for a plain `${`")? + at;
        expanded.push_str(&lookup(&rest[at + 2..end], env)?);
        rest = &rest[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn lookup(placeholder: &str, env: Env) -> Result<String, String> {
    if let Some(file) = placeholder.strip_prefix("file:") {
        let text = std::fs::read_to_string(Path::new(file))
            .map_err(|error| format!("file `{file}` cannot be read ({error}); mend the path or its permissions"))?;
        return Ok(text.trim_end_matches(['\n', '\r']).to_owned());
    }
    let (name, default) = match placeholder.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (placeholder, None),
    };
    let is_name = !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(format!(
            "`${{{name}}}` is no placeholder; write `${{NAME}}`, `${{NAME:-default}}` or `${{file:/path}}`, and `$${{` for a plain `${{`"
        ));
    }
    match (env(name), default) {
        (Some(value), _) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.to_owned()),
        (Some(_), None) => Ok(String::new()),
        (None, None) => Err(format!(
            "environment variable `{name}` is not set; set it or give a default, as in `${{{name}:-value}}`"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("broker".to_owned()),
            "EMPTY" => Some(String::new()),
            "TRICKY" => Some("a: [b]\nc: ${HOST}".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn placeholders_become_text() {
        let cases = [
            ("${HOST}", "broker"),
            ("${HOST}:9092,${HOST}2", "broker:9092,broker2"),
            ("${NONE:-x:y}", "x:y"),
            ("${EMPTY:-x}", "x"),
            ("$${HOST} $HOST $", "${HOST} $HOST $"),
            ("${TRICKY}", "a: [b]\nc: ${HOST}"),
        ];
        for (text, expected) in cases {
            assert_eq!(expand(text, &env).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn an_empty_value_is_no_value_and_structure_stays() {
        let mut value: Value = yaml_serde::from_str("a: ${EMPTY}\nb: [1, '${TRICKY}', true]").unwrap();
        interpolate(&mut value, "", &env).unwrap();
        assert_eq!(value["a"], Value::Null);
        assert_eq!(value["b"][1], Value::String("a: [b]\nc: ${HOST}".to_owned()));
        assert_eq!(value["b"].as_sequence().map(Vec::len), Some(3));
    }

    #[test]
    fn files_lose_their_last_line_end_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, " p\nq \n").unwrap();
        assert_eq!(expand(&format!("<${{file:{}}}>", file.display()), &env).as_deref(), Ok("< p\nq >"));
    }

    #[test]
    fn mistakes_name_key_and_remedy() {
        let cases = [
            (
                "a: {b: [x, '${NOPE}']}",
                "setting `a.b[1]`: environment variable `NOPE` is not set; set it or give a default, as in `${NOPE:-value}`",
            ),
            ("a: '${HOST'", "setting `a`: a placeholder `${` has no `}`; write `$${` for a plain `${`"),
            (
                "a: '${1A}'",
                "setting `a`: `${1A}` is no placeholder; write `${NAME}`, `${NAME:-default}` or `${file:/path}`, and `$${` for a plain `${`",
            ),
            (
                "a: '${file:/no/such}'",
                "setting `a`: file `/no/such` cannot be read (No such file or directory (os error 2)); mend the path or its permissions",
            ),
        ];
        for (yaml, expected) in cases {
            let mut value: Value = yaml_serde::from_str(yaml).unwrap();
            assert_eq!(interpolate(&mut value, "", &env).unwrap_err().to_string(), expected);
        }
    }
}
