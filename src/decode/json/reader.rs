//! From a JSON Schema's keywords to the types of values that they leave: references followed, `allOf` merged.

use serde_json::{Map, Value};

use super::documents::{Documents, Node};
use super::schema::{Format, Kind, Object, Property, Schema, invalid};
use super::union::BRANCHES_MAX;
use crate::error::Result;

/// Schemas that one text may come to, references written out.
const SCHEMAS_MAX: usize = 20_000;

/// Schemas inside each other; beyond it a place takes anything, as with recursion.
const TRAIL_MAX: usize = 200;

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const INTEGER: u8 = 4;
const NUMBER: u8 = 4 + 8;
const STRING: u8 = 16;
const ARRAY: u8 = 32;
const OBJECT: u8 = 64;
const TYPES: [(&str, u8); 7] = [
    ("null", NULL),
    ("boolean", BOOLEAN),
    ("integer", INTEGER),
    ("number", NUMBER),
    ("string", STRING),
    ("array", ARRAY),
    ("object", OBJECT),
];

/// Reads schemas of one set of documents.
pub(super) struct Reader<'a> {
    documents: &'a Documents<'a>,
    /// The schemas that the one being read stands in: a reference to one of them is recursion.
    trail: Vec<*const Value>,
    read: usize,
}

/// The schemas that all hold in one place: one as written, those that it refers to, and their `allOf`.
#[derive(Default)]
struct Parts<'a> {
    /// Where in the trail they begin.
    start: usize,
    list: Vec<Part<'a>>,
    /// True where one of them is `false`.
    never: bool,
}

#[derive(Clone, Copy)]
struct Part<'a> {
    map: &'a Map<String, Value>,
    node: Node<'a>,
    /// True where a `$ref` makes the other keywords count for nothing but as annotations.
    mute: bool,
}

impl<'a> Parts<'a> {
    fn all(&self, key: &str) -> impl Iterator<Item = (&'a Value, Node<'a>)> {
        let loud = self.list.iter().filter(|part| !part.mute);
        loud.filter_map(move |part| Some((part.map.get(key)?, part.node)))
    }

    fn annotation<T>(&self, key: &str, read: impl Fn(&'a Value) -> Option<T>) -> Option<T> {
        self.list.iter().find_map(|part| read(part.map.get(key)?))
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.annotation(key, Value::as_str)
    }

    fn has(&self, keys: &[&str]) -> bool {
        keys.iter().any(|key| self.all(key).next().is_some())
    }

    /// The bits of all types that the parts agree on, and whether any of them names a type.
    fn types(&self) -> (u8, bool) {
        let mut types = (u8::MAX, false);
        for (value, _) in self.all("type") {
            let named = |value: &Value| TYPES.iter().find(|(name, _)| value == name).map_or(0, |(_, bits)| *bits);
            let bits = value.as_array().map_or_else(|| named(value), |list| list.iter().fold(0, |b, v| b | named(v)));
            types = (types.0 & bits, true);
        }
        types
    }

    fn allowed(&self) -> Vec<Value> {
        let one = self.all("const").next().map(|(value, _)| vec![value.clone()]);
        one.or_else(|| self.all("enum").next().and_then(|(value, _)| value.as_array().cloned())).unwrap_or_default()
    }
}

fn type_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(number) if number.is_f64() => NUMBER,
        Value::Number(_) => INTEGER,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

fn anything() -> Schema {
    Schema { nullable: true, ..Schema::of(Kind::Any) }
}

fn nothing() -> Schema {
    Schema { nullable: true, ..Schema::of(Kind::Null) }
}

impl<'a> Reader<'a> {
    pub(super) fn new(documents: &'a Documents<'a>) -> Self {
        Self { documents, trail: Vec::new(), read: 0 }
    }

    /// The values of a place in which all of `nodes` hold.
    pub(super) fn read(&mut self, nodes: &[Node<'a>]) -> Result<Schema> {
        self.read += 1;
        if self.read > SCHEMAS_MAX {
            return Err(invalid(format!("references written out come to more than {SCHEMAS_MAX} schemas")));
        }
        let mut parts = Parts { start: self.trail.len(), ..Parts::default() };
        let mut ends = true;
        for node in nodes {
            ends &= self.flatten(*node, &mut parts)?;
        }
        let mut schema = if ends { self.combine(&parts)? } else { anything() };
        self.trail.truncate(parts.start);
        let owned = |key| parts.text(key).filter(|text| !text.is_empty()).map(str::to_owned);
        schema.title = owned("title").or(schema.title);
        schema.doc = owned("description").or(schema.doc);
        schema.index = parts.annotation("connect.index", Value::as_i64).or(schema.index);
        Ok(schema)
    }

    /// Adds `node` and all that holds beside it; false where that is recursion.
    fn flatten(&mut self, node: Node<'a>, parts: &mut Parts<'a>) -> Result<bool> {
        let pointer = std::ptr::from_ref(node.value);
        if let Some(at) = self.trail.iter().position(|known| *known == pointer) {
            // Said twice in one place it adds nothing.
            return Ok(at >= parts.start);
        }
        if self.trail.len() == TRAIL_MAX {
            return Ok(false);
        }
        self.trail.push(pointer);
        let Value::Object(map) = node.value else {
            parts.never |= node.value == &Value::Bool(false);
            return Ok(true);
        };
        let reference = ["$ref", "$dynamicRef", "$recursiveRef"].iter().find_map(|key| map.get(*key)?.as_str());
        let mute = reference.is_some() && self.documents.ref_stands_alone(node);
        parts.list.push(Part { map, node, mute });
        let mut ends = true;
        if let Some(reference) = reference {
            let target = self.documents.find(node, reference);
            let target = target.ok_or_else(|| invalid(format!("`$ref` leads nowhere: `{reference}`")))?;
            ends &= self.flatten(target, parts)?;
        }
        if !mute {
            for value in map.get("allOf").and_then(Value::as_array).into_iter().flatten() {
                ends &= self.flatten(self.documents.inside(node, value), parts)?;
            }
        }
        Ok(ends)
    }

    fn combine(&mut self, parts: &Parts<'a>) -> Result<Schema> {
        if parts.never {
            return Ok(nothing());
        }
        let (mut types, typed) = parts.types();
        let allowed = parts.allowed();
        if !allowed.is_empty() {
            let listed = allowed.iter().fold(0, |types, value| types | type_of(value));
            types = if typed { types & (!NULL | listed) } else { listed };
        } else if types & OBJECT != 0 && !parts.has(&["properties"]) {
            // Branches beside a scalar type, or beside members, only narrow what is there.
            let unions: Vec<_> = parts.all("oneOf").chain(parts.all("anyOf")).collect();
            match unions.as_slice() {
                [] => {}
                [(branches, node)] => return self.union(branches, *node),
                _ => return Ok(anything()),
            }
        }
        if !typed && allowed.is_empty() {
            types = if parts.has(&["properties", "additionalProperties", "patternProperties", "required"]) {
                OBJECT
            } else if parts.has(&["items", "prefixItems"]) {
                ARRAY
            } else {
                return Ok(anything());
            };
        }
        let nullable = types & NULL != 0;
        let kind = match types & !NULL {
            0 if nullable => Kind::Null,
            0 => Kind::Any,
            types @ (BOOLEAN | INTEGER | NUMBER | STRING | ARRAY | OBJECT) => self.single(types, parts)?,
            _ if !typed => Kind::Any,
            types => self.by_type(types, parts)?,
        };
        Ok(Schema { nullable: nullable || kind == Kind::Any, allowed, ..Schema::of(kind) })
    }

    /// Several types in one `type`: branches named by them.
    fn by_type(&mut self, types: u8, parts: &Parts<'a>) -> Result<Kind> {
        let listed = parts.all("type").find_map(|(value, _)| value.as_array()).into_iter().flatten();
        let mut branches = Vec::new();
        for value in listed {
            let Some((name, bits)) = TYPES.iter().find(|(name, _)| value == name) else { continue };
            let part_of_number = *bits == INTEGER && types & NUMBER == NUMBER;
            if bits & types & !NULL != 0 && !part_of_number {
                branches.push(((*name).to_owned(), Schema::of(self.single(bits & types, parts)?)));
            }
        }
        Ok(Kind::Union(branches.into()))
    }

    fn union(&mut self, branches: &'a Value, node: Node<'a>) -> Result<Schema> {
        let mut nullable = false;
        let mut known = Vec::new();
        for value in branches.as_array().into_iter().flatten() {
            let branch = self.read(&[self.documents.inside(node, value)])?;
            nullable |= branch.nullable;
            if branch.kind != Kind::Null {
                known.push(branch);
            }
        }
        let Some(first) = known.first() else {
            return Ok(if nullable { nothing() } else { anything() });
        };
        // A list of constants, each with a comment of its own, is an enum.
        let scalar = !matches!(first.kind, Kind::Any | Kind::Array(_) | Kind::Object(_) | Kind::Union(_));
        if scalar && known.iter().all(|branch| branch.kind == first.kind && !branch.allowed.is_empty()) {
            let kind = first.kind.clone();
            let allowed = known.into_iter().flat_map(|branch| branch.allowed).collect();
            return Ok(Schema { nullable, allowed, ..Schema::of(kind) });
        }
        if known.len() == 1 {
            return Ok(known.pop().map_or_else(anything, |branch| Schema { nullable, ..branch }));
        }
        if known.len() > BRANCHES_MAX {
            return Ok(anything());
        }
        let name = |(index, branch): (usize, Schema)| {
            (branch.title.clone().unwrap_or_else(|| format!("branch_{index}")), branch)
        };
        let kind = Kind::Union(known.into_iter().enumerate().map(name).collect());
        Ok(Schema { nullable, ..Schema::of(kind) })
    }

    fn single(&mut self, types: u8, parts: &Parts<'a>) -> Result<Kind> {
        Ok(match types {
            BOOLEAN => Kind::Boolean,
            ARRAY => return self.array(parts),
            OBJECT => return self.object(parts),
            _ => scalar(types, parts),
        })
    }

    fn array(&mut self, parts: &Parts<'a>) -> Result<Kind> {
        let is_tuple = parts.has(&["prefixItems"]) || parts.all("items").any(|(items, _)| items.is_array());
        if is_tuple {
            return Ok(Kind::Any);
        }
        let items: Vec<_> = parts.all("items").map(|(value, node)| self.documents.inside(node, value)).collect();
        let items = if items.is_empty() { anything() } else { self.read(&items)? };
        if let (Some("map"), Kind::Object(entry)) = (parts.text("connect.type"), &items.kind) {
            let of = |name: &str| entry.properties.iter().find(|property| property.name == name);
            if let (Some(key), Some(value)) = (of("key"), of("value")) {
                return Ok(Kind::Entries(Box::new(key.schema.clone()), Box::new(value.schema.clone())));
            }
        }
        Ok(Kind::Array(Box::new(if items.kind == Kind::Null { anything() } else { items })))
    }

    fn object(&mut self, parts: &Parts<'a>) -> Result<Kind> {
        let additional: Vec<_> = parts.all("additionalProperties").collect();
        let is_map = parts.text("connect.type") == Some("map");
        let mut members = Members::default();
        members.add(parts, self.documents);
        let mut loose = Members::default();
        for node in self.variants(parts) {
            // Members that only some objects have: they are columns too, and never required.
            let mut variant = Parts { start: parts.start, ..Parts::default() };
            if self.flatten(node, &mut variant)? {
                loose.add(&variant, self.documents);
            }
        }
        loose.0.retain(|(name, _)| members.0.iter().all(|(known, _)| known != name));
        if is_map || (members.0.is_empty() && loose.0.is_empty()) {
            let of = additional.iter().find(|(value, _)| value.as_object().is_some_and(|map| !map.is_empty()));
            return Ok(match of {
                Some((value, node)) if is_map || !parts.has(&["patternProperties"]) => {
                    let values = self.read(&[self.documents.inside(*node, value)])?;
                    Kind::Map(Box::new(if values.kind == Kind::Null { anything() } else { values }))
                }
                _ if is_map => Kind::Map(Box::new(anything())),
                _ => Kind::Any,
            });
        }
        let required = |name: &str| {
            parts.all("required").any(|(list, _)| list.as_array().is_some_and(|list| list.iter().any(|v| v == name)))
        };
        let mut properties = Vec::with_capacity(members.0.len() + loose.0.len());
        for (name, nodes) in members.0 {
            properties.push(Property { name: name.to_owned(), schema: self.read(&nodes)?, required: required(name) });
        }
        for (name, nodes) in loose.0 {
            let mut schema = self.read(&nodes[..1])?;
            for node in &nodes[1..] {
                schema = if self.read(&[*node])?.kind == schema.kind { schema } else { anything() };
            }
            properties.push(Property { name: name.to_owned(), schema, required: false });
        }
        if properties.iter().all(Property::is_columnless) {
            return Ok(Kind::Any); // Iceberg has no empty struct.
        }
        properties.sort_by_key(|property| (property.schema.index.is_none(), property.schema.index));
        let is_false = |key| parts.all(key).any(|(value, _)| value == &Value::Bool(false));
        let closed = is_false("additionalProperties") || is_false("unevaluatedProperties");
        Ok(Kind::Object(Object { properties, closed }.into()))
    }

    /// Schemas that hold for some objects of the place only.
    fn variants(&self, parts: &Parts<'a>) -> Vec<Node<'a>> {
        let lists = ["oneOf", "anyOf"].into_iter().flat_map(|key| parts.all(key));
        let lists = lists.flat_map(|(value, node)| value.as_array().into_iter().flatten().map(move |v| (v, node)));
        let single = ["then", "else"].into_iter().flat_map(|key| parts.all(key));
        let maps = ["dependentSchemas", "dependencies"].into_iter().flat_map(|key| parts.all(key));
        let maps = maps.flat_map(|(value, node)| {
            value.as_object().into_iter().flat_map(Map::values).filter(|v| v.is_object()).map(move |v| (v, node))
        });
        lists.chain(single).chain(maps).map(|(value, node)| self.documents.inside(node, value)).collect()
    }
}

/// Members in order, each with all that is said of its values.
#[derive(Default)]
struct Members<'a>(Vec<(&'a str, Vec<Node<'a>>)>);

impl<'a> Members<'a> {
    fn add(&mut self, parts: &Parts<'a>, documents: &Documents<'a>) {
        for (value, node) in parts.all("properties") {
            for (name, value) in value.as_object().into_iter().flatten() {
                let node = documents.inside(node, value);
                match self.0.iter_mut().find(|(known, _)| known == name) {
                    Some((_, nodes)) => nodes.push(node),
                    None => self.0.push((name, vec![node])),
                }
            }
        }
    }
}

/// Numbers and texts, with what Kafka Connect's JSON Schema converter says of them (`JsonSchemaData` in Confluent's
/// schema-registry): `connect.type` is the type of Connect, the title its logical type, `connect.parameters` that
/// type's parameters.
fn scalar(types: u8, parts: &Parts<'_>) -> Kind {
    let logical = parts
        .list
        .iter()
        .find_map(|part| part.map.get("title")?.as_str()?.strip_prefix("org.apache.kafka.connect.data."));
    match (logical, parts.text("connect.type"), types) {
        (Some("Date"), _, INTEGER) => Kind::Days,
        (Some("Time"), _, INTEGER) => Kind::TimeMillis,
        (Some("Timestamp"), _, INTEGER) => Kind::TimestampMillis,
        (Some("Decimal"), ..) => {
            let number = |key: &str| {
                let value = parts.annotation("connect.parameters", |parameters| parameters.get(key))?;
                value.as_i64().or_else(|| value.as_str()?.parse().ok())
            };
            let precision = number("connect.decimal.precision").and_then(|digits| u64::try_from(digits).ok());
            // Connect's own Decimal knows no precision; 38 is the most that Iceberg has.
            Kind::Decimal(precision.unwrap_or(38), number("scale").unwrap_or(0))
        }
        (_, Some("bytes"), STRING) => Kind::Bytes,
        (.., STRING) => Kind::Text(parts.text("format").and_then(|format| {
            Some(match format {
                "date-time" => Format::DateTime,
                "date" => Format::Date,
                "time" => Format::Time,
                "uuid" => Format::Uuid,
                _ => return None,
            })
        })),
        (_, Some("int8" | "int16" | "int32"), INTEGER) => Kind::Int,
        (.., INTEGER) => Kind::Long,
        (_, Some("float32"), _) => Kind::Float,
        _ => Kind::Double,
    }
}
