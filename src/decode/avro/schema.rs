//! Avro schemas as decoding needs them: named types resolved, meanings recognised, annotations kept. How their text is
//! read stands in `names` and `logical`.

use std::sync::Arc;

use serde_json::Value;

pub use super::logical::Logical;
pub use super::names::{parse, parse_text};

/// Records, arrays and maps may stand in one another that deep, in a schema and in a value of a recursive type.
pub const LEVELS_MAX: u32 = 100;

/// A schema may have that many nodes when each reference is written out: references to references double quickly.
pub const NODES_MAX: usize = 100_000;

/// A schema with all that it refers to.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// The type of the values.
    pub root: Node,
    /// The records that [`Kind::Recursive`] leads to.
    pub definitions: Definitions,
}

/// Records that occur inside themselves, by the index that [`Kind::Recursive`] has.
pub type Definitions = Arc<[Arc<Record>]>;

/// A type: what the bytes are, and what they mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// What the bytes are.
    pub kind: Kind,
    /// What they mean, where the pair of type and annotation is one that is known.
    pub logical: Option<Logical>,
    /// The name, where the type is a named one.
    pub name: Option<Arc<Name>>,
}

/// The name of a record, enum or fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Namespace and simple name, by a dot; the simple name alone where there is no namespace.
    pub full: String,
    /// Full names that readers may know it by.
    pub aliases: Vec<String>,
}

/// Avro's types.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// No bytes.
    Null,
    /// One byte.
    Boolean,
    /// Zigzag varint of 32 bits.
    Int,
    /// Zigzag varint of 64 bits.
    Long,
    /// Four bytes, little endian.
    Float,
    /// Eight bytes, little endian.
    Double,
    /// Length and bytes.
    Bytes,
    /// Length and UTF-8.
    String,
    /// That many bytes.
    Fixed(usize),
    /// Index into the symbols.
    Enum(Enum),
    /// Fields in order; `error` types, too.
    Record(Arc<Record>),
    /// Blocks of elements.
    Array(Box<Node>),
    /// Blocks of string keys and values.
    Map(Box<Node>),
    /// An array whose elements are the entries of a map: records of a `key` that is never null and a `value`.
    Entries(Arc<Record>),
    /// Branch index and value.
    Union(Arc<[Node]>),
    /// A reference to a record from inside its own definition: the index among the schema's definitions.
    Recursive(usize),
}

/// An enum type.
#[derive(Debug, Clone, PartialEq)]
pub struct Enum {
    /// Symbols in order.
    pub symbols: Arc<[String]>,
    /// The symbol that readers take for one that they do not know.
    pub default: Option<String>,
}

/// A record type.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Fields in order.
    pub fields: Vec<RecordField>,
}

/// A field of a record.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordField {
    /// Name.
    pub name: String,
    /// Names that readers may know it by.
    pub aliases: Vec<String>,
    /// Comment.
    pub doc: Option<String>,
    /// The value of the field where a writer lacks it, in Avro's JSON form; whether it fits is not checked.
    pub default: Option<Value>,
    /// Type.
    pub node: Node,
}

impl Name {
    /// The name without its namespace.
    #[must_use]
    pub fn simple(&self) -> &str {
        simple_name(&self.full)
    }
}

/// A full name without its namespace.
#[must_use]
pub fn simple_name(full: &str) -> &str {
    full.rsplit_once('.').map_or(full, |(_, simple)| simple)
}

impl Node {
    /// A type without name and further meaning.
    #[must_use]
    pub fn plain(kind: Kind) -> Self {
        Self { kind, logical: None, name: None }
    }

    /// The full name of a named type, else the word for what it is; unions tell their branches apart by it.
    #[must_use]
    pub fn word(&self) -> &str {
        match (&self.name, &self.kind) {
            (Some(name), _) => &name.full,
            (_, Kind::Null) => "null",
            (_, Kind::Boolean) => "boolean",
            (_, Kind::Int) => "int",
            (_, Kind::Long) => "long",
            (_, Kind::Float) => "float",
            (_, Kind::Double) => "double",
            (_, Kind::Bytes) => "bytes",
            (_, Kind::String) => "string",
            (_, Kind::Array(_) | Kind::Entries(_)) => "array",
            (_, Kind::Map(_)) => "map",
            (_, Kind::Union(_)) => "union",
            (_, Kind::Fixed(_) | Kind::Enum(_) | Kind::Record(_) | Kind::Recursive(_)) => "",
        }
    }
}
