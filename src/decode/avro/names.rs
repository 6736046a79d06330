//! From a schema's text to its types: names, namespaces and references resolved, what the specification forbids refused.
//!
//! What Java's lenient parser takes is taken: names of letters, digits, `_`, `-` and `$` in any order, defaults that do
//! not fit, symbols of any text, and a type defined twice in the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::logical::logical;
use super::schema::{Enum, Kind, LEVELS_MAX, NODES_MAX, Name, Node, Record, RecordField, Schema};
use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;

/// Reads a registered schema and what it refers to.
///
/// # Errors
/// `InvalidRecord` where the text is no Avro schema.
pub fn parse(registered: &RegisteredSchema) -> Result<Schema> {
    let mut names = Names::default();
    let read = read_references(registered, &mut names, &mut BTreeSet::new());
    read.and_then(|()| names.schema(&registered.text)).map_err(|error| error.context("read Avro schema"))
}

/// Reads a schema's text that refers to nothing outside of itself.
///
/// # Errors
/// As [`parse`].
pub fn parse_text(text: &str) -> Result<Schema> {
    Names::default().schema(text).map_err(|error| error.context("read Avro schema"))
}

/// Reads what a schema refers to, each text once, however many schemas refer to it.
fn read_references<'a>(
    registered: &'a RegisteredSchema,
    names: &mut Names,
    seen: &mut BTreeSet<&'a str>,
) -> Result<()> {
    for (name, reference) in &registered.references {
        if seen.insert(&reference.text) {
            read_references(reference, names, seen)?;
            let read = json(&reference.text).and_then(|json| names.read(&json, None));
            read.map_err(|error| error.context(format!("reference `{name}`")))?;
        }
    }
    Ok(())
}

fn json(text: &str) -> Result<Value> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        // The name of a type without quotes.
        Err(_) if text.starts_with(|c: char| c.is_ascii_alphabetic()) => Ok(Value::String(text.to_owned())),
        Err(e) => Err(invalid("the text is not JSON").with_source(e)),
    }
}

fn invalid(what: impl std::fmt::Display) -> Error {
    Error::invalid_record(what.to_string())
}

#[derive(Default)]
struct Names {
    known: BTreeMap<String, Known>,
    /// The records that are referred to inside their own definitions; `None` while that is being read.
    recursive: Vec<Option<Arc<Record>>>,
}

#[derive(Default)]
struct Known {
    /// `None` while the type is being read: a reference to it then is recursion.
    node: Option<Node>,
    /// Its index among the recursive ones.
    recursive: Option<usize>,
}

impl Names {
    fn schema(mut self, text: &str) -> Result<Schema> {
        let root = json(text).and_then(|json| self.read(&json, None))?;
        bounded(&root)?;
        Ok(Schema { root, definitions: self.recursive.into_iter().flatten().collect() })
    }

    fn read(&mut self, json: &Value, namespace: Option<&str>) -> Result<Node> {
        match json {
            Value::String(name) => self.named(name, namespace),
            Value::Array(branches) => self.union(branches, namespace),
            Value::Object(object) => self.object(object, namespace),
            _ => Err(invalid("a type is a name, a list of branches or an object")),
        }
    }

    fn union(&mut self, branches: &[Value], namespace: Option<&str>) -> Result<Node> {
        let branches = branches.iter().map(|branch| self.read(branch, namespace)).collect::<Result<Vec<_>>>()?;
        let mut words = BTreeSet::new();
        for branch in &branches {
            if matches!(branch.kind, Kind::Union(_)) {
                return Err(invalid("a union stands directly in a union"));
            }
            if !words.insert(branch.word()) {
                return Err(invalid(format!("a union has two branches of type `{}`", branch.word())));
            }
        }
        Ok(Node::plain(Kind::Union(branches.into())))
    }

    fn named(&mut self, name: &str, namespace: Option<&str>) -> Result<Node> {
        if let Some(kind) = primitive(name) {
            return Ok(Node::plain(kind));
        }
        let full = full_name(name, namespace);
        let full = if self.known.contains_key(&full) { full.as_str() } else { name };
        let Some(known) = self.known.get_mut(full) else {
            return Err(invalid(format!("type `{}` is not defined", full_name(name, namespace))));
        };
        if let Some(node) = &known.node {
            return Ok(node.clone());
        }
        let index = *known.recursive.get_or_insert_with(|| {
            self.recursive.push(None);
            self.recursive.len() - 1
        });
        // The aliases stand with the definition, which is not read yet.
        let name = Name { full: full.to_owned(), aliases: Vec::new() };
        Ok(Node { name: Some(Arc::new(name)), ..Node::plain(Kind::Recursive(index)) })
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: Option<&str>) -> Result<Node> {
        let kind = match object.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(nested) => return self.read(nested, namespace),
            None => return Err(invalid("an object without `type`")),
        };
        match kind {
            "record" | "error" => self.record(object, namespace),
            "enum" => {
                let (name, _) = definition_name(object, namespace)?;
                let kind = enumeration(object).map_err(|error| error.context(format!("type `{}`", name.full)))?;
                let before = self.begin(&name)?;
                self.end(Node { name: Some(name), ..Node::plain(kind) }, before)
            }
            "fixed" => {
                let (name, _) = definition_name(object, namespace)?;
                let size = object.get("size").and_then(Value::as_u64).and_then(|size| i32::try_from(size).ok());
                let size = size.and_then(|size| usize::try_from(size).ok());
                let kind = Kind::Fixed(size.ok_or_else(|| invalid(format!("type `{}` without `size`", name.full)))?);
                let logical = logical(&kind, object);
                let before = self.begin(&name)?;
                self.end(Node { kind, logical, name: Some(name) }, before)
            }
            "array" => {
                let items = object.get("items").ok_or_else(|| invalid("array without `items`"))?;
                Ok(Node::plain(array(self.read(items, namespace)?, object, items)))
            }
            "map" => {
                let values = object.get("values").ok_or_else(|| invalid("map without `values`"))?;
                Ok(Node::plain(Kind::Map(Box::new(self.read(values, namespace)?))))
            }
            name => {
                let mut node = self.named(name, namespace)?;
                node.logical = logical(&node.kind, object).or(node.logical);
                Ok(node)
            }
        }
    }

    /// A definition begins: what was known of the type before.
    fn begin(&mut self, name: &Name) -> Result<Option<Node>> {
        match self.known.get_mut(&name.full) {
            Some(Known { node: None, .. }) => Err(invalid(format!("type `{}` is defined inside itself", name.full))),
            Some(known) => Ok(known.node.take()),
            None => {
                self.known.insert(name.full.clone(), Known::default());
                Ok(None)
            }
        }
    }

    /// A definition ends. The same one twice is one; registries hold such schemas.
    fn end(&mut self, node: Node, before: Option<Node>) -> Result<Node> {
        if before.is_some_and(|before| before != node) {
            return Err(invalid(format!("type `{}` is defined twice", node.word())));
        }
        if let Some(known) = self.known.get_mut(node.word()) {
            if let (Some(index), Kind::Record(record)) = (known.recursive, &node.kind) {
                self.recursive[index] = Some(Arc::clone(record));
            }
            known.node = Some(node.clone());
        }
        Ok(node)
    }

    fn record(&mut self, object: &Map<String, Value>, namespace: Option<&str>) -> Result<Node> {
        let (name, inner) = definition_name(object, namespace)?;
        let before = self.begin(&name)?;
        let record = Arc::new(self.fields(object, inner.as_deref(), &name)?);
        let node = Node { name: Some(name), ..Node::plain(Kind::Record(record)) };
        bounded(&node)?;
        self.end(node, before)
    }

    fn fields(&mut self, object: &Map<String, Value>, namespace: Option<&str>, of: &Name) -> Result<Record> {
        let list = object.get("fields").and_then(Value::as_array);
        let list = list.ok_or_else(|| invalid(format!("record `{}` without `fields`", of.full)))?;
        let mut fields: Vec<RecordField> = Vec::with_capacity(list.len());
        for field in list {
            let name = field.get("name").and_then(Value::as_str).filter(|name| is_name(name));
            let name = name.ok_or_else(|| invalid(format!("record `{}` has a field without a name", of.full)))?;
            if fields.iter().any(|known| known.name == name) {
                return Err(invalid(format!("record `{}` has two fields `{name}`", of.full)));
            }
            let here = |error: Error| error.context(format!("field `{name}` of record `{}`", of.full));
            let kind = field.get("type").ok_or_else(|| here(invalid("no `type`")))?;
            // A common slip puts `logicalType` beside the field's `type` instead of inside; the specification gives it
            // no meaning there, and so do we.
            let node = self.read(kind, namespace).map_err(here)?;
            let doc = field.get("doc").or_else(|| attribute(kind, "connect.doc")).and_then(Value::as_str);
            fields.push(RecordField {
                name: name.to_owned(),
                aliases: texts(field.get("aliases")),
                doc: doc.map(str::to_owned),
                default: field.get("default").or_else(|| attribute(kind, "connect.default")).cloned(),
                node,
            });
        }
        Ok(Record { fields })
    }
}

/// An attribute of a type, or of the one branch beside null that it has.
fn attribute<'a>(kind: &'a Value, name: &str) -> Option<&'a Value> {
    match kind {
        Value::Object(object) => object.get(name),
        Value::Array(branches) if branches.len() <= 2 => branches.iter().find_map(|branch| branch.get(name)),
        _ => None,
    }
}

fn enumeration(object: &Map<String, Value>) -> Result<Kind> {
    let list = object.get("symbols").and_then(Value::as_array).ok_or_else(|| invalid("enum without `symbols`"))?;
    let symbols = texts(Some(&Value::Array(list.clone())));
    if symbols.len() != list.len() || symbols.iter().collect::<BTreeSet<_>>().len() != list.len() {
        return Err(invalid("the symbols are not all different texts"));
    }
    let default = object.get("default").and_then(Value::as_str).map(str::to_owned);
    Ok(Kind::Enum(Enum { symbols: symbols.into(), default }))
}

fn texts(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    list.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// An array, or a map where it says to be one: Kafka Connect writes maps of other keys than strings so, and Iceberg's
/// own Avro files do.
fn array(items: Node, array: &Map<String, Value>, written: &Value) -> Kind {
    if let Kind::Record(entry) = &items.kind
        && let [key, value] = entry.fields.as_slice()
        && (key.name.as_str(), value.name.as_str()) == ("key", "value")
        && !matches!(key.node.kind, Kind::Null | Kind::Union(_))
    {
        let says = |value: Option<&Value>, text: &str| value.and_then(Value::as_str) == Some(text);
        if items.name.as_ref().is_some_and(|name| name.simple() == "MapEntry")
            || says(array.get("logicalType"), "map")
            || says(written.get("connect.internal.type"), "MapEntry")
        {
            return Kind::Entries(Arc::clone(entry));
        }
    }
    Kind::Array(Box::new(items))
}

fn primitive(name: &str) -> Option<Kind> {
    Some(match name {
        "null" => Kind::Null,
        "boolean" => Kind::Boolean,
        "int" => Kind::Int,
        "long" => Kind::Long,
        "float" => Kind::Float,
        "double" => Kind::Double,
        "bytes" => Kind::Bytes,
        "string" => Kind::String,
        _ => return None,
    })
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '$'))
}

fn full_name(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(space) if !name.contains('.') && !space.is_empty() => format!("{space}.{name}"),
        _ => name.to_owned(),
    }
}

/// The name that `object` defines and the namespace that holds inside it.
fn definition_name(object: &Map<String, Value>, outer: Option<&str>) -> Result<(Arc<Name>, Option<String>)> {
    let name = object.get("name").and_then(Value::as_str).ok_or_else(|| invalid("named type without `name`"))?;
    let full = full_name(name, object.get("namespace").and_then(Value::as_str).or(outer));
    if !full.split('.').all(is_name) || primitive(&full).is_some() {
        return Err(invalid(format!("`{full}` is no name of a type")));
    }
    let inner = full.rsplit_once('.').map(|(space, _)| space.to_owned());
    let aliases = texts(object.get("aliases")).iter().map(|alias| full_name(alias, inner.as_deref())).collect();
    Ok((Arc::new(Name { full, aliases }), inner))
}

fn bounded(node: &Node) -> Result<()> {
    let (levels, nodes) = measure(node);
    if levels > LEVELS_MAX {
        return Err(invalid(format!("types stand more than {LEVELS_MAX} deep in one another")));
    }
    if nodes > NODES_MAX {
        return Err(invalid(format!("more than {NODES_MAX} types with all references written out")));
    }
    Ok(())
}

/// How many records, arrays and maps stand in one another at most, and the number of nodes.
fn measure(node: &Node) -> (u32, usize) {
    let within = |nodes: &mut dyn Iterator<Item = &Node>| {
        nodes.map(measure).fold((0, 0), |(levels, sum), (inner, nodes)| (levels.max(inner), sum + nodes))
    };
    let (levels, nodes) = match &node.kind {
        Kind::Record(record) => within(&mut record.fields.iter().map(|field| &field.node)),
        Kind::Entries(entry) => {
            let (levels, nodes) = within(&mut entry.fields.iter().map(|field| &field.node));
            (levels + 1, nodes + 1)
        }
        Kind::Array(inner) | Kind::Map(inner) => measure(inner),
        Kind::Union(branches) => {
            let (levels, nodes) = within(&mut branches.iter());
            return (levels, nodes + 1);
        }
        _ => return (0, 1),
    };
    (levels + 1, nodes + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::SchemaFormat;

    fn record(schema: &Schema) -> &Record {
        let Kind::Record(record) = &schema.root.kind else { panic!("no record") };
        record
    }

    #[test]
    fn names_resolve_by_namespace_and_recursion_is_seen() {
        let schema = parse_text(
            r#"{"type":"record","name":"Node","namespace":"a.b","aliases":["Old","c.Older"],"fields":[
                {"name":"id","type":{"type":"fixed","name":"Id","size":16,"logicalType":"uuid"}},
                {"name":"other","type":"Id","aliases":["another"]},
                {"name":"next","type":["null","Node"],"default":null},
                {"name":"bare","type":{"type":"enum","name":"E","namespace":"","symbols":["x"],"default":"x"}},
                {"name":"again","type":"E"},
                {"name":"n","type":["null",{"type":"int","connect.doc":"of Connect","connect.default":7}]}]}"#,
        );
        let schema = schema.unwrap();
        let fields = &record(&schema).fields;
        let name = schema.root.name.as_ref().unwrap();
        assert_eq!((name.full.as_str(), name.simple()), ("a.b.Node", "Node"));
        assert_eq!(name.aliases, ["a.b.Old", "c.Older"]);
        assert_eq!((fields[1].node.word(), fields[1].aliases.as_slice()), ("a.b.Id", &["another".to_owned()][..]));
        assert_eq!(
            (&fields[1].node, fields[1].node.logical),
            (&fields[0].node, Some(super::super::schema::Logical::Uuid))
        );
        let Kind::Union(branches) = &fields[2].node.kind else { panic!("no union") };
        assert_eq!((&branches[1].kind, branches[1].word()), (&Kind::Recursive(0), "a.b.Node"));
        assert_eq!(fields[2].default, Some(Value::Null));
        assert_eq!(*schema.definitions[0], *record(&schema));
        assert_eq!(
            (fields[3].node.word(), &fields[4].node),
            ("E", &fields[3].node),
            "the null namespace is asked last"
        );
        let Kind::Enum(symbols) = &fields[3].node.kind else { panic!("no enum") };
        assert_eq!(symbols.default.as_deref(), Some("x"));
        assert_eq!((fields[5].doc.as_deref(), &fields[5].default), (Some("of Connect"), &Some(7.into())));
    }

    #[test]
    fn references_are_read_once_however_many_lead_to_them() {
        let reference = |text: &str, references: &[&Arc<RegisteredSchema>]| {
            let references = references.iter().map(|reference| ("r".to_owned(), Arc::clone(reference))).collect();
            Arc::new(RegisteredSchema { id: 1, format: SchemaFormat::Avro, text: text.to_owned(), references })
        };
        let a = reference(r#"{"type":"record","name":"n.A","fields":[{"name":"a","type":["null","A"]}]}"#, &[]);
        let b = reference(r#"{"type":"record","name":"n.B","fields":[{"name":"a","type":"A"}]}"#, &[&a]);
        let c = reference(r#"{"type":"error","name":"C","fields":[{"name":"a","type":"n.A"}]}"#, &[&a]);
        let root = r#"{"type":"record","name":"R","fields":[{"name":"b","type":"n.B"},{"name":"c","type":"C"}]}"#;
        let schema = parse(&reference(root, &[&a, &b, &c])).unwrap();
        assert_eq!(record(&schema).fields[0].node.word(), "n.B");
        assert_eq!(schema.definitions.len(), 1);
        let gone = parse(&reference(root, &[&a, &c])).unwrap_err();
        assert_eq!(gone.chain(), "read Avro schema: field `b` of record `R`: type `n.B` is not defined");
        let wrong = parse(&reference(root, &[&reference("{}", &[])])).unwrap_err();
        assert_eq!(wrong.chain(), "read Avro schema: reference `r`: an object without `type`");
    }

    #[test]
    fn what_the_specification_forbids_is_refused_and_what_is_common_is_taken() {
        let field = |kind: &str| format!(r#"{{"type":"record","name":"R","fields":[{{"name":"f","type":{kind}}}]}}"#);
        let two = |one: &str, other: &str| format!(r#"[{one},{{"type":"array","items":{other}}}]"#);
        let fixed = |size: u8| format!(r#"{{"type":"fixed","name":"F","size":{size}}}"#);
        for (text, wrong) in [
            (field(r#"["int","int"]"#), "field `f` of record `R`: a union has two branches of type `int`"),
            (field(r#"["int",{"type":"int","logicalType":"date"}]"#), "two branches of type `int`"),
            (field(r#"["null",["int"]]"#), "a union stands directly in a union"),
            (field(r#""Gone""#), "type `Gone` is not defined"),
            (field(r#"{"type":"enum","name":"E"}"#), "enum without `symbols`"),
            (field(r#"{"type":"enum","name":"E","symbols":["a","a"]}"#), "type `E`: the symbols are not all different"),
            (field(r#"{"type":"enum","name":"E","symbols":["a",1]}"#), "type `E`: the symbols are not all different"),
            (field(r#"{"type":"enum","name":"R","symbols":[]}"#), "type `R` is defined inside itself"),
            (field(r#"{"type":"fixed","name":"F","size":-1}"#), "type `F` without `size`"),
            (field(r#"{"type":"fixed","name":"a b","size":1}"#), "`a b` is no name of a type"),
            (field(r#"{"type":"fixed","name":"a..b","size":1}"#), "`a..b` is no name of a type"),
            (field(r#"{"type":"fixed","name":"int","size":1}"#), "`int` is no name of a type"),
            (two(&fixed(1), &fixed(2)), "type `F` is defined twice"),
            (r#"{"type":"record","name":"R","fields":[{"name":"a.b","type":"int"}]}"#.to_owned(), "without a name"),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"a","type":"int"}]}"#
                    .to_owned(),
                "record `R` has two fields `a`",
            ),
        ] {
            let error = parse_text(&text).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::InvalidRecord);
            assert!(error.chain().contains(wrong), "{text}: {}", error.chain());
        }
        let node = r#"{"type":"record","name":"N","fields":[{"name":"n","type":["null","N"]}]}"#;
        for text in [
            two(&fixed(1), &fixed(1)),
            two(node, node),
            "string".to_owned(),
            r#"{"type":"record","name":"a-1.$R","fields":[{"name":"2-$","type":"int","default":"text"}]}"#.to_owned(),
            field(r#"{"type":"enum","name":"E","symbols":["a b","-"],"default":"c"}"#),
        ] {
            parse_text(&text).unwrap();
        }
    }

    #[test]
    fn schemas_that_double_or_nest_without_end_are_refused() {
        let chain = |count: usize, fields: &str| {
            let record = |n: usize| {
                let fields = fields.replace('@', &(n - 1).to_string());
                format!(r#"{{"type":"record","name":"R{n}","fields":[{fields}]}}"#)
            };
            let first = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
            format!("[{}]", [vec![first], (1..count).map(record).collect()].concat().join(","))
        };
        let (one, two) = (r#"{"name":"a","type":"R@"}"#, r#"{"name":"a","type":"R@"},{"name":"b","type":"R@"}"#);
        parse_text(&chain(100, one)).unwrap();
        assert!(parse_text(&chain(101, one)).unwrap_err().chain().contains("types stand more than 100 deep"));
        assert!(parse_text(&chain(60, two)).unwrap_err().chain().contains("more than 100000 types"));
    }
}
