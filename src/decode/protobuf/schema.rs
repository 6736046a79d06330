//! Protobuf schemas as decoding needs them: message types that know the types of their fields, in circles too.
//!
//! Left out is what reading does not depend on: whether a repeated field is packed, since both forms are to be read
//! whatever is declared; whether an enum is closed, since an unknown number becomes text either way; and explicit
//! defaults of proto2, since an absent field is absent.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, FileDescriptor, MapKey, MessageDescriptor, Value};

use super::framing::MessagePath;
use super::source::{Linked, link};
use crate::error::{Error, Result};
use crate::ports::RegisteredSchema;

/// A registered schema: the message types of one file.
#[derive(Debug)]
pub struct File {
    messages: HashMap<MessagePath, Arc<Message>>,
}

/// A message type.
#[derive(Clone)]
pub struct Message {
    /// All types that the file's messages lead to; fields refer to each other's types by index.
    types: Arc<[MessageType]>,
    index: usize,
}

struct MessageType {
    full_name: String,
    fields: Vec<MessageField>,
    oneofs: Vec<String>,
    /// Field numbers, ascending, with their places among the fields.
    numbers: Vec<(u32, usize)>,
}

/// A field of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageField {
    /// Name.
    pub name: String,
    /// Name in JSON.
    pub json_name: String,
    /// Number.
    pub number: u32,
    /// Type of one value.
    pub kind: Kind,
    /// How many values there are, and what none means.
    pub presence: Presence,
    /// Index among the message's oneofs.
    pub oneof: Option<usize>,
    /// Comment.
    pub doc: Option<String>,
    /// Precision and scale of a `confluent.type.Decimal`, as far as `confluent.field_meta` says.
    pub decimal: (Option<u8>, Option<u8>),
}

/// How many values a field has, and what none means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// One; none is an error (proto2).
    Required,
    /// One or null.
    Optional,
    /// One; none stands for the zero of its type (proto3).
    Implicit,
    /// Any number.
    Repeated,
}

/// A type of values.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// A number, truth value, text or bytes.
    Scalar(Scalar),
    /// A named number.
    Enum(Arc<Enum>),
    /// A message, for [`Message::of`].
    Message(usize),
    /// A message between a start and an end tag, for [`Message::of`].
    Group(usize),
    /// A map's entry, for [`Message::of`]: a message of a key with number 1 and a value with number 2.
    Entry(usize),
}

/// Types without parts. Names are those of the language.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the language's")]
pub enum Scalar {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
}

/// An enum type.
#[derive(Debug, PartialEq, Eq)]
pub struct Enum {
    /// Full name.
    pub full_name: String,
    /// The value that stands first, which an absent field means.
    first: i32,
    /// Ascending by number.
    names: Vec<(i32, String)>,
}

impl Enum {
    /// The number that an absent field means.
    #[must_use]
    pub fn default_number(&self) -> i32 {
        self.first
    }

    /// The first name of a number.
    #[inline]
    #[must_use]
    pub fn name(&self, number: i32) -> Option<&str> {
        let names = &self.names;
        // Most enums count from 0 without holes.
        let counted = usize::try_from(number).ok().and_then(|at| names.get(at)).filter(|(n, _)| *n == number);
        counted
            .or_else(|| names.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| &names[at]))
            .map(|(_, name)| name.as_str())
    }
}

impl File {
    /// The message type at a path.
    ///
    /// # Errors
    /// `InvalidRecord` where there is none.
    pub fn message(&self, path: MessagePath) -> Result<&Arc<Message>> {
        self.messages.get(&path).ok_or_else(|| invalid("no message has the record's index"))
    }
}

impl Message {
    /// Name with packages and outer messages.
    #[must_use]
    pub fn full_name(&self) -> &str {
        &self.types[self.index].full_name
    }

    /// Fields in the order that they are declared in.
    #[must_use]
    pub fn fields(&self) -> &[MessageField] {
        &self.types[self.index].fields
    }

    /// Names of the oneofs, without those that stand for a single optional field.
    #[must_use]
    pub fn oneofs(&self) -> &[String] {
        &self.types[self.index].oneofs
    }

    /// The place of a field among [`Message::fields`], by its number.
    #[must_use]
    pub fn position(&self, number: u32) -> Option<usize> {
        let numbers = &self.types[self.index].numbers;
        numbers.binary_search_by_key(&number, |(n, _)| *n).ok().map(|at| numbers[at].1)
    }

    /// What fields refer to this type by.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The type that a field of this message refers to by index.
    #[must_use]
    pub fn of(&self, index: usize) -> Self {
        Self { types: Arc::clone(&self.types), index }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({})", self.full_name())
    }
}

/// Reads a registered schema, as text or as the base64 of a `FileDescriptorProto`, and what it refers to.
///
/// # Errors
/// `InvalidRecord` where it is no Protobuf schema.
pub fn parse(registered: &RegisteredSchema) -> Result<File> {
    let linked = link(registered)?;
    let mut paths = Vec::new();
    collect(&linked, linked.file.messages(), &mut Vec::new(), &mut paths);
    let mut graph = Graph {
        linked: &linked,
        order: Vec::new(),
        known: HashMap::new(),
        enums: HashMap::new(),
        docs: HashMap::new(),
    };
    let paths: Vec<_> = paths.into_iter().map(|(path, message)| (path, graph.index(&message))).collect();
    let mut types = Vec::new();
    while let Some(message) = graph.order.get(types.len()).cloned() {
        types.push(graph.message_type(&message)?);
    }
    let types: Arc<[MessageType]> = types.into();
    let message = |index| Arc::new(Message { types: Arc::clone(&types), index });
    Ok(File { messages: paths.into_iter().map(|(path, index)| (path, message(index))).collect() })
}

fn invalid(what: impl fmt::Display) -> Error {
    Error::invalid_record(format!("read Protobuf schema: {what}"))
}

/// All messages with their paths, but for those deeper than a path can say.
fn collect(
    linked: &Linked,
    messages: impl Iterator<Item = MessageDescriptor>,
    indexes: &mut Vec<u32>,
    found: &mut Vec<(MessagePath, MessageDescriptor)>,
) {
    for (index, message) in (0..).zip(messages.filter(|message| linked.counts(message))) {
        indexes.push(index);
        if let Some(path) = MessagePath::new(indexes) {
            collect(linked, message.child_messages(), indexes, found);
            found.push((path, message));
        }
        indexes.pop();
    }
}

struct Graph<'a> {
    linked: &'a Linked,
    /// Messages in the order of their indexes.
    order: Vec<MessageDescriptor>,
    known: HashMap<String, usize>,
    enums: HashMap<String, Arc<Enum>>,
    /// Comments by file, each by the path of what it stands at.
    docs: HashMap<String, Arc<HashMap<Vec<i32>, String>>>,
}

impl Graph<'_> {
    fn index(&mut self, message: &MessageDescriptor) -> usize {
        let next = self.order.len();
        let index = *self.known.entry(message.full_name().to_owned()).or_insert(next);
        if index == next {
            self.order.push(message.clone());
        }
        index
    }

    fn message_type(&mut self, message: &MessageDescriptor) -> Result<MessageType> {
        let file = message.parent_file();
        let docs = self.docs.entry(file.name().to_owned()).or_insert_with(|| Arc::new(docs(&file)));
        let docs = Arc::clone(docs);
        let oneofs: Vec<_> = message.oneofs().filter(|oneof| !oneof.is_synthetic()).collect();
        // Descriptors give fields by number; columns stand as they are declared.
        let mut fields: Vec<_> = message.fields().collect();
        fields.sort_by_key(|field| field.path().last().copied());
        let fields = fields
            .into_iter()
            .map(|field| {
                let features = self.features(&field);
                let oneof = field.containing_oneof();
                let oneof = oneof.and_then(|oneof| oneofs.iter().position(|known| *known == oneof));
                Ok(MessageField {
                    name: field.name().to_owned(),
                    json_name: field.json_name().to_owned(),
                    number: field.number(),
                    kind: self.kind(&field, features.delimited),
                    presence: presence(&field, features),
                    oneof,
                    doc: docs.get(field.path()).cloned(),
                    decimal: decimal(&field)?,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        let oneofs = oneofs.iter().map(|oneof| oneof.name().to_owned()).collect();
        let mut numbers: Vec<_> = fields.iter().enumerate().map(|(at, field)| (field.number, at)).collect();
        numbers.sort_unstable();
        Ok(MessageType { full_name: message.full_name().to_owned(), fields, oneofs, numbers })
    }

    fn kind(&mut self, field: &FieldDescriptor, delimited: bool) -> Kind {
        use prost_reflect::Kind as Described;
        Kind::Scalar(match field.kind() {
            Described::Double => Scalar::Double,
            Described::Float => Scalar::Float,
            Described::Int32 => Scalar::Int32,
            Described::Int64 => Scalar::Int64,
            Described::Uint32 => Scalar::Uint32,
            Described::Uint64 => Scalar::Uint64,
            Described::Sint32 => Scalar::Sint32,
            Described::Sint64 => Scalar::Sint64,
            Described::Fixed32 => Scalar::Fixed32,
            Described::Fixed64 => Scalar::Fixed64,
            Described::Sfixed32 => Scalar::Sfixed32,
            Described::Sfixed64 => Scalar::Sfixed64,
            Described::Bool => Scalar::Bool,
            Described::String => Scalar::String,
            Described::Bytes => Scalar::Bytes,
            Described::Enum(kind) => return Kind::Enum(self.named_numbers(&kind)),
            Described::Message(message) => {
                let index = self.index(&message);
                return if field.is_map() {
                    Kind::Entry(index)
                } else if field.is_group() || delimited {
                    Kind::Group(index)
                } else {
                    Kind::Message(index)
                };
            }
        })
    }

    fn named_numbers(&mut self, kind: &EnumDescriptor) -> Arc<Enum> {
        let read = || {
            let values = &kind.enum_descriptor_proto().value;
            let first = values.first().and_then(|value| value.number).unwrap_or(0);
            let mut names: Vec<_> = values.iter().map(|value| (value.number(), value.name().to_owned())).collect();
            // Stable: of names for the same number the first stays.
            names.sort_by_key(|(number, _)| *number);
            names.dedup_by_key(|(number, _)| *number);
            Arc::new(Enum { full_name: kind.full_name().to_owned(), first, names })
        };
        Arc::clone(self.enums.entry(kind.full_name().to_owned()).or_insert_with(read))
    }

    /// What editions say of a field, the innermost word counting. Other files have no features.
    fn features(&self, field: &FieldDescriptor) -> Features {
        let mut features = Features { implicit: None, required: false, delimited: false };
        if !self.linked.editions.contains(field.parent_file().name()) {
            return features;
        }
        features.implicit = Some(false);
        let mut levels = vec![field.options(), field.parent_message().options()];
        let mut outer = field.parent_message().parent_message();
        while let Some(message) = outer {
            levels.push(message.options());
            outer = message.parent_message();
        }
        levels.push(field.parent_file().options());
        for options in levels.iter().rev() {
            let Some(options) = options.get_field_by_name("features") else { continue };
            let word = |name| {
                let value = options.as_message()?.get_field_by_name(name)?;
                value.as_enum_number().filter(|number| *number != 0)
            };
            if let Some(presence) = word("field_presence") {
                features.implicit = Some(presence == 2);
                features.required = presence == 3;
            }
            if let Some(encoding) = word("message_encoding") {
                features.delimited = encoding == 2;
            }
        }
        features
    }
}

/// Features of editions that reading depends on.
#[derive(Clone, Copy)]
struct Features {
    /// `None` in files of proto2 and proto3.
    implicit: Option<bool>,
    required: bool,
    delimited: bool,
}

fn presence(field: &FieldDescriptor, features: Features) -> Presence {
    let explicit = field.containing_oneof().is_some() || field.kind().as_message().is_some();
    match (field.cardinality(), features.implicit) {
        (Cardinality::Repeated, _) => Presence::Repeated,
        (Cardinality::Required, _) => Presence::Required,
        (Cardinality::Optional, Some(_)) if features.required => Presence::Required,
        (Cardinality::Optional, Some(implicit)) if explicit || !implicit => Presence::Optional,
        (Cardinality::Optional, None) if field.supports_presence() => Presence::Optional,
        (Cardinality::Optional, _) => Presence::Implicit,
    }
}

/// Precision and scale in the parameters of `confluent.field_meta`.
fn decimal(field: &FieldDescriptor) -> Result<(Option<u8>, Option<u8>)> {
    let meta = field.parent_pool().get_extension_by_name("confluent.field_meta");
    let (Some(meta), true) = (meta, field.kind().as_message().is_some()) else { return Ok((None, None)) };
    let options = field.options();
    if !options.has_extension(&meta) {
        return Ok((None, None));
    }
    let meta = options.get_extension(&meta);
    let params = meta.as_message().and_then(|meta| meta.get_field_by_name("params"));
    let number = |name: &str| {
        let text = params.as_ref()?.as_map()?.get(&MapKey::String(name.to_owned())).and_then(Value::as_str)?;
        Some(text.parse().map_err(|_| invalid(format!("field `{}`: `{name}` is no number", field.full_name()))))
    };
    Ok((number("precision").transpose()?, number("scale").transpose()?))
}

/// Comments by the path of what they stand before, or behind on the same line.
fn docs(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let Some(info) = &file.file_descriptor_proto().source_code_info else { return HashMap::new() };
    let documented = info.location.iter().filter_map(|location| {
        let comment = location.leading_comments.as_ref().or(location.trailing_comments.as_ref())?;
        let lines: Vec<&str> = comment.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        (!lines.is_empty()).then(|| (location.path.clone(), lines.join(" ")))
    });
    documented.collect()
}
