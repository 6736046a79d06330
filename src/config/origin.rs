//! Where a table's records come from: topics by name or by pattern; and how records are spread over several tables. What
//! is made of the records is in `table`.

use std::collections::BTreeSet;

use regex::Regex;
use sha2::{Digest as _, Sha256};

use super::resolve::{Config, check_tables, invalid};
use super::settings::{Defaults, TableSettings};
use super::table::{TableConfig, refuse_repeats, resolve_table};
use crate::error::Result;
use crate::model::ids::TableName;

/// Longer values are cut in a table's name, and told apart by their hash.
const VALUE_CHARS_MAX: usize = 100;
/// Kafka's and Confluent's own topics begin so; a pattern does not take them.
const INTERNAL: &str = "__";

/// How records are spread over tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteConfig {
    /// What decides.
    pub by: RouteBy,
    /// The tables' full name, with `{}` for the value.
    pub template: String,
}

/// What a route goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteBy {
    /// The name of the value's type in the schema registry.
    RecordName,
    /// The value of this header.
    Header(String),
    /// The field at this path of the value, dots between its parts.
    Field(String),
}

/// Tables of topics that are found by a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicPattern {
    /// Its place among `tables`.
    position: usize,
    /// The regular expression, which compiles.
    pattern: String,
    settings: TableSettings,
    defaults: Defaults,
}

/// Where a table's records come from.
pub(super) struct Origin {
    pub(super) topics: Vec<String>,
    pub(super) topic_pattern: Option<String>,
    pub(super) table: TableName,
    pub(super) route: Option<RouteConfig>,
}

impl RouteConfig {
    /// The table of a value. `apart` tells it from that of another value which would have the same name.
    ///
    /// # Errors
    /// `InvalidConfig` where that is no table name.
    pub fn table(&self, value: &str, apart: bool) -> Result<TableName> {
        // A type is known by its simple name.
        let simple = match self.by {
            RouteBy::RecordName => value.rsplit('.').next().unwrap_or(value),
            RouteBy::Header(_) | RouteBy::Field(_) => value,
        };
        let mut name: String = legal(simple).chars().take(VALUE_CHARS_MAX).collect();
        if apart || name.len() < simple.chars().count() {
            let hash = Sha256::digest(value);
            name = format!("{name}_{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2]);
        }
        self.template.replace("{}", &name).parse()
    }
}

impl TableConfig {
    /// The table of a route's value: made as this one is, for those records alone.
    #[must_use]
    pub fn of_value(&self, table: TableName, value: &str) -> Self {
        Self { table, route_value: Some(value.to_owned()), ..self.clone() }
    }
}

impl Config {
    /// The configuration with the tables of all patterns, as far as `topics` match them. Topics that another table
    /// names are left to it, and so are internal ones.
    ///
    /// # Errors
    /// `InvalidConfig` where two of the tables would be one.
    pub fn with_topics(&self, topics: &BTreeSet<String>) -> Result<Self> {
        let mut named: BTreeSet<&String> = self.tables.iter().flat_map(|table| &table.topics).collect();
        // Dead letters are nobody's to read.
        named.extend(self.tables.iter().filter_map(|table| table.dead_letter_topic.as_ref()));
        named.extend(self.patterns.iter().filter_map(|pattern| pattern.settings.dead_letter_topic.as_ref()));
        let free: Vec<&String> =
            topics.iter().filter(|topic| !named.contains(topic) && !topic.starts_with(INTERNAL)).collect();
        let mut tables = self.tables.iter().map(|table| (table.table.to_string(), table.clone())).collect::<Vec<_>>();
        for pattern in &self.patterns {
            let regex = compile(pattern.position, &pattern.pattern)?;
            let matched = free.iter().filter(|topic| regex.is_match(topic)).map(|topic| (*topic).clone()).collect();
            let entry = |table: TableConfig| (format!("tables[{}]", pattern.position), table);
            tables.extend(pattern.tables(matched)?.into_iter().map(entry));
        }
        check_tables(&tables)?;
        let tables = tables.into_iter().map(|(_, table)| table).collect();
        Ok(Self { patterns: Vec::new(), tables, ..self.clone() })
    }
}

impl TopicPattern {
    /// The pattern of an entry, where it has one.
    pub(super) fn of(position: usize, entry: &TableSettings, defaults: &Defaults) -> Result<Option<Self>> {
        let Some(pattern) = &entry.topic_pattern else { return Ok(None) };
        if entry.topic.is_some() || entry.topics.is_some() {
            let key = format!("tables[{position}].topic_pattern");
            return Err(invalid(&key, "`topic` or `topics` is written too; keep one of them"));
        }
        compile(position, pattern)?;
        let (settings, defaults) = (entry.clone(), defaults.clone());
        let pattern = Self { position, pattern: pattern.clone(), settings, defaults };
        // What is wrong with it is said now, and not when the first topic comes.
        pattern.tables(vec!["topic".to_owned()])?;
        Ok(Some(pattern))
    }

    /// One table for each topic where its name has the topic's, else one for all.
    fn tables(&self, topics: Vec<String>) -> Result<Vec<TableConfig>> {
        let resolve = |settings: TableSettings| resolve_table(self.position, &settings, &self.defaults);
        if topics.is_empty() {
            return Ok(Vec::new());
        }
        if self.settings.table.as_ref().is_some_and(|name| !name.contains("{topic}")) {
            return Ok(vec![resolve(TableSettings { topics: Some(topics), ..self.settings.clone() })?]);
        }
        let one = |topic| TableSettings { topic: Some(topic), topic_pattern: None, ..self.settings.clone() };
        topics.into_iter().map(|topic| resolve(one(topic))).collect()
    }
}

fn compile(position: usize, pattern: &str) -> Result<Regex> {
    Regex::new(pattern).map_err(|error| {
        let key = format!("tables[{position}].topic_pattern");
        invalid(&key, &format!("`{pattern}` is no regular expression; mend it")).with_source(error)
    })
}

/// Where the records of `tables[position]` come from.
pub(super) fn origin(position: usize, written: &TableSettings, defaults: &Defaults) -> Result<Origin> {
    let topics = topics(position, written)?;
    let key = format!("tables[{position}].table");
    let template = match (&written.table, topics.as_slice()) {
        (Some(template), [_]) => template.as_str(),
        (None, [_]) => "{topic}",
        (Some(template), _) if !template.contains("{topic}") => template.as_str(),
        _ => return Err(invalid(&key, "the table has several topics; give it a name without `{topic}`")),
    };
    let topic = legal(&topics[0]);
    let (template, by) = value_part(&key, &template.replace("{topic}", &topic))?;
    if let Some(c) = template.chars().find(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '\\')) {
        let text = format!("`{}` has the character {c:?}; leave it out", template.escape_debug());
        return Err(invalid(&key, &text));
    }
    let namespace = defaults.namespace.as_deref().unwrap_or("lake");
    let full = if template.contains('.') { template } else { format!("{namespace}.{template}") };
    let named = |name: &str| {
        name.parse().map_err(|_| invalid(&key, &format!("`{name}` is no table name; write `namespace.name`")))
    };
    let (table, route) = match by {
        None => (named(&full)?, None),
        Some(by) => {
            let (namespace, name) = full.rsplit_once('.').unwrap_or_default();
            if namespace.contains("{}") || !name.contains("{}") {
                return Err(invalid(
                    &key,
                    "the namespace is the same for all tables; use the value behind the last dot",
                ));
            }
            let rest = name.replace("{}", "");
            let stem = if rest.trim_matches('_').is_empty() { topic.as_str() } else { rest.trim_matches('_') };
            let table = named(&format!("{namespace}.{stem}__unrouted"))?;
            (table, Some(RouteConfig { by, template: full.clone() }))
        }
    };
    Ok(Origin { topics, topic_pattern: written.topic_pattern.clone(), table, route })
}

/// The name with `{}` for the part that a record's value stands for, and which value that is.
fn value_part(key: &str, template: &str) -> Result<(String, Option<RouteBy>)> {
    let Some((before, rest)) = template.split_once('{') else { return Ok((template.to_owned(), None)) };
    let refuse = |part: &str| {
        let text = format!(
            "`{part}` is no part of a name; write `{{topic}}`, `{{record_name}}`, `{{header:name}}` or `{{field:path}}`"
        );
        Err(invalid(key, &text))
    };
    let Some((part, behind)) = rest.split_once('}') else { return refuse(&format!("{{{rest}")) };
    let by = match part.split_once(':') {
        None if part == "record_name" => RouteBy::RecordName,
        Some(("header", name)) if !name.is_empty() => RouteBy::Header(name.to_owned()),
        Some(("field", path)) if path.split('.').all(|part| !part.is_empty()) => RouteBy::Field(path.to_owned()),
        _ => return refuse(&format!("{{{part}}}")),
    };
    if behind.contains(['{', '}']) || before.contains('}') {
        return Err(invalid(key, &format!("`{template}` has several parts; keep one, beside `{{topic}}`")));
    }
    Ok((format!("{before}{{}}{behind}"), Some(by)))
}

fn topics(position: usize, written: &TableSettings) -> Result<Vec<String>> {
    let (topics, key) = match (&written.topic, &written.topics) {
        (Some(topic), None) => (vec![topic.clone()], "topic"),
        (None, Some(topics)) if !topics.is_empty() => (topics.clone(), "topics"),
        (None, _) => {
            return Err(invalid(
                &format!("tables[{position}].topic"),
                "it is missing; name the topic, several under `topics`, or a `topic_pattern`",
            ));
        }
        (Some(_), Some(_)) => {
            return Err(invalid(&format!("tables[{position}].topics"), "`topic` is written too; keep one of them"));
        }
    };
    let key = format!("tables[{position}].{key}");
    topics.iter().try_for_each(|topic| check_topic(&key, topic))?;
    refuse_repeats(&key, &topics)?;
    Ok(topics)
}

/// Kafka's own rule, org.apache.kafka.common.internals.Topic.
pub(super) fn check_topic(key: &str, topic: &str) -> Result<()> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if topic.is_empty() || topic.len() > 249 || topic == "." || topic == ".." || !topic.chars().all(allowed) {
        let text = format!("`{topic}` cannot be a topic; names have 1 to 249 letters, digits, `.`, `_` and `-`");
        return Err(invalid(key, &text));
    }
    Ok(())
}

/// `_` for what is no letter or digit.
fn legal(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests;
