//! Names and identities: tables, topics, partitions, commits.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;

/// A table's full name: namespace levels and name, written `level.level.name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TableName {
    /// Namespace, outermost level first; at least one.
    pub namespace: Vec<String>,
    /// Name inside the namespace.
    pub name: String,
}

impl TableName {
    /// The namespace in one string, levels joined by dots, as the SQL catalog stores it.
    #[must_use]
    pub fn namespace_text(&self) -> String {
        self.namespace.join(".")
    }

    /// The table beside this one that holds its dead letters.
    #[must_use]
    pub fn dead_letters(&self) -> Self {
        Self { namespace: self.namespace.clone(), name: format!("{}__dead_letters", self.name) }
    }
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for level in &self.namespace {
            write!(f, "{level}.")?;
        }
        f.write_str(&self.name)
    }
}

impl FromStr for TableName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut levels: Vec<String> = text.split('.').map(str::to_owned).collect();
        let name = levels.pop().unwrap_or_default();
        if levels.is_empty() || name.is_empty() || levels.iter().any(String::is_empty) {
            return Err(Error::invalid_config(format!("table name `{text}` is not of the form namespace.name")));
        }
        Ok(Self { namespace: levels, name })
    }
}

impl TryFrom<String> for TableName {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<TableName> for String {
    fn from(name: TableName) -> Self {
        name.to_string()
    }
}

/// A topic and one of its partitions, by name, as the broker's group protocol speaks of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    /// Topic name.
    pub topic: Arc<str>,
    /// Partition number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// Partition `partition` of `topic`.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.topic, self.partition)
    }
}

/// One reading of a partition from a start position on. What comes of an earlier attempt is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Attempt(pub u64);

/// Names one commit in the snapshot summary, so that a lost answer can be looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommitId(pub Uuid);

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.simple().fmt(f)
    }
}
