//! Templates of text: literal parts and columns' values, `{title}\n{address.city}`. Nothing here sees a row.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// A text with columns to fill in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    text: String,
    /// Its parts in order.
    pub parts: Vec<Part>,
}

/// A part of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Text as it stands.
    Literal(String),
    /// The value of a column: its name, and the fields below it.
    Column(Vec<String>),
}

impl Template {
    /// The columns that it needs, each by its names from the top.
    pub fn paths(&self) -> impl Iterator<Item = &[String]> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Column(path) => Some(path.as_slice()),
        })
    }

    /// The top-level columns that it needs.
    #[must_use]
    pub fn columns(&self) -> BTreeSet<&str> {
        self.paths().filter_map(|path| path.first()).map(String::as_str).collect()
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Template {
    type Err = Error;

    /// Reads a template; `{{` and `}}` are literal braces.
    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            let text = format!("{what}; write columns as `{{title}}`, and `{{{{` for a brace");
            Error::new(ErrorKind::InvalidConfig, text)
        };
        let (mut parts, mut literal) = (Vec::new(), String::new());
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            literal.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix(brace) {
                literal.push_str(brace);
                rest = after;
                continue;
            }
            let end = rest.find('}').filter(|_| brace == "{").ok_or_else(|| wrong("a brace stands alone"))?;
            let path: Vec<String> = rest[..end].trim().split('.').map(str::to_owned).collect();
            if path.iter().any(|name| name.is_empty() || name.contains('{')) {
                return Err(wrong("a column has no name"));
            }
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(Part::Column(path));
            rest = &rest[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if !parts.iter().any(|part| matches!(part, Part::Column(_))) {
            return Err(wrong("no column stands in it"));
        }
        Ok(Self { text: text.to_owned(), parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(path: &[&str]) -> Part {
        Part::Column(path.iter().map(|name| (*name).to_owned()).collect())
    }

    fn literal(text: &str) -> Part {
        Part::Literal(text.to_owned())
    }

    #[test]
    fn a_template_is_read() {
        let check = |text: &str, parts: &[Part]| assert_eq!(text.parse::<Template>().unwrap().parts, parts, "{text}");
        check("{a}", &[column(&["a"])]);
        check("{title}\n{ body.text }", &[column(&["title"]), literal("\n"), column(&["body", "text"])]);
        check("{{x}} is {x}", &[literal("{x} is "), column(&["x"])]);
        for wrong in ["", "text", "{", "}", "{}", "{a", "{a.}", "a } {b}", "{{x}}"] {
            assert!(wrong.parse::<Template>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_columns_of_a_template_are_its_roots() {
        let template: Template = "{b.c} {a} {b.d}".parse().unwrap();
        assert_eq!(template.columns().into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
