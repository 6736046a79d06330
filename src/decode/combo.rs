//! How records with one kind of key and one kind of value are read: which schemas, which columns, which programs.
//! Worked out once per kind; the loop over records is in `plan`.

use std::sync::Arc;

use super::MessagePath;
use super::columns::Column;
use super::constant::Absent;
use super::evolution::{Evolution, Side, evolved, wanted};
use super::framing::{Failure, SchemaKey, Which, framed};
use super::json::RESCUED;
use super::layout::{Format, KeyColumns, side_columns};
use super::mapping::{columns_of, position};
use super::plan::{Decoder, SchemaUse};
use super::protobuf::framing;
use super::protobuf::schema::File;
use super::schema::{Columns, Program, Schema, Target, with_rescued};
use crate::model::decoded::Reason;
use crate::model::raw::Headers;
use crate::model::schema::{TableSchema, Type};

/// What one side of a record is, as far as the way to read it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Null,
    Plain,
    /// `path`: which message it is, where the schema may have several.
    Schema {
        key: SchemaKey,
        path: Option<MessagePath>,
        start: usize,
    },
}

/// How records with one kind of key and one kind of value are read.
#[derive(Debug)]
pub(super) enum Combo {
    /// `open`: the columns that the value may fill.
    Read {
        key: Step,
        value: Step,
        absent: Vec<Absent>,
        open: Vec<usize>,
    },
    Rejected(Reason, String),
    Needs(Vec<SchemaKey>, Option<TableSchema>),
    Misfit(String),
}

#[derive(Debug)]
pub(super) enum Step {
    Nothing,
    Text(usize),
    Bytes(usize),
    Program(Box<Program>, usize),
}

impl Decoder {
    pub(super) fn key_is_read(&self) -> bool {
        !matches!(self.layout.key_columns, KeyColumns::None | KeyColumns::Raw)
    }

    /// What one side of a record is; `last` is what that side of the record before was.
    pub(super) fn part(
        &self,
        which: Which,
        bytes: Option<&[u8]>,
        headers: Headers<'_>,
        last: Option<Part>,
    ) -> Result<Part, Failure> {
        let format = if which == Which::Key { self.sides.key } else { self.sides.value };
        let Some(bytes) = bytes.filter(|_| format != Format::None) else { return Ok(Part::Null) };
        let Some(framed) = framed(format, which, bytes, headers)? else { return Ok(Part::Plain) };
        let (key, start) = (framed.key, framed.start);
        let has_messages = match last {
            Some(Part::Schema { key: last, path, .. }) if last == key => path.is_some(),
            _ => format == Format::Registry && self.messages(key).is_some(),
        };
        if !has_messages {
            return Ok(Part::Schema { key, path: None, start });
        }
        let read = |bytes| framing::read(bytes).map_err(|(reason, message)| (reason, message.into()));
        let (path, taken) = match framed.behind {
            Some([]) => (MessagePath::FIRST, 0),
            Some(behind) => (read(behind)?.0, 0),
            None => read(&bytes[start..])?,
        };
        let part = Part::Schema { key, path: Some(path), start: start + taken };
        // What lies in the bytes makes no combination to remember: it may be anything.
        if last != Some(part)
            && let Some(file) = self.messages(key)
        {
            file.message(path).map_err(|error| (Reason::IncompatibleSchema, error.to_string().into()))?;
        }
        Ok(part)
    }

    /// The messages of a schema, where that is of a language that has some.
    fn messages(&self, key: SchemaKey) -> Option<&File> {
        match self.schemas.get(&key) {
            Some(SchemaUse::Known(schema)) => schema.messages(),
            _ => None,
        }
    }

    pub(super) fn compile(&self, (key, value): (Part, Part)) -> Result<Combo, (Reason, String)> {
        let unknown = |part| match part {
            Part::Schema { key, .. } if !self.schemas.contains_key(&key) => Some(key),
            _ => None,
        };
        let unknown: Vec<SchemaKey> = [key, value].into_iter().filter_map(unknown).collect();
        if !unknown.is_empty() {
            return Ok(Combo::Needs(unknown, None));
        }
        let key_format = if self.layout.key_columns == KeyColumns::Raw { Format::Bytes } else { self.sides.key };
        let key = if self.layout.key_columns == KeyColumns::None { Part::Null } else { key };
        let (mut of_key, of_value) = (self.columns(key, key_format)?, self.columns(value, self.sides.value)?);
        let projection = &self.layout.projection;
        let key_name = if self.table.field(projection.name("key_key")).is_some() { "key_key" } else { "key" };
        let of_values = if value == Part::Null { self.taken_by_values(&mut of_key, key_name) } else { Vec::new() };
        let side = |columns: &Columns, part| Side { columns: columns.clone(), version: self.version(part) };
        let wanted = wanted(&self.table, &self.layout, side(&of_key, key), side(&of_value, value));
        let wanted = wanted.map_err(|error| error.to_string());
        match wanted.and_then(|wanted| Ok(evolved(&self.table, &wanted, &self.layout)?.map(|_| wanted))) {
            Ok(None) => {}
            Ok(Some(wanted)) => return Ok(Combo::Needs(Vec::new(), Some(wanted))),
            Err(misfit) if self.layout.evolution == Evolution::Strict => return Ok(Combo::Misfit(misfit)),
            Err(misfit) => return Err((Reason::IncompatibleSchema, misfit)),
        }
        let without = |names: &[usize]| self.data.iter().copied().filter(|index| !names.contains(index)).collect();
        let open: Vec<usize> = match (value, self.sides.value) {
            // Its members may be anything, and do not take the key's columns.
            (Part::Plain, Format::Json) => {
                let of_key = side_columns(of_key.clone(), key_name, self.layout.key_columns == KeyColumns::Struct);
                let of_key = of_key.into_iter().filter(|field| field.name != RESCUED).collect::<Vec<_>>();
                let columns = columns_of(projection, &self.table.fields, &of_key, "");
                without(&columns.into_iter().filter_map(|column| column?.1).collect::<Vec<_>>())
            }
            _ => self.data.clone(),
        };
        let has_no_value = value == Part::Null;
        let value = self.step(value, self.sides.value, of_value, "value", &open)?;
        let filled = value.filled();
        let taken: Vec<usize> = filled.iter().copied().chain(of_values).collect();
        let key = self.step(key, key_format, of_key, key_name, &without(&taken))?;
        let absent = without(&filled.into_iter().chain(key.filled()).collect::<Vec<_>>());
        let absent = absent.into_iter().map(|index| Absent::new(&self.table.fields, index, has_no_value)).collect();
        Ok(Combo::Read { key, value, absent, open })
    }

    /// [`Side::version`].
    fn version(&self, part: Part) -> Option<(String, u32)> {
        let Part::Schema { key, path, .. } = part else { return None };
        let of = self.schema(key).ok()?.name(path.unwrap_or(MessagePath::FIRST))?;
        Some((of.to_owned(), if let SchemaKey::Id(id) = key { id } else { 0 }))
    }

    /// The columns of a key's fields that are a value's of another type: where there is no value they stay null. Such
    /// fields are taken out of `of_key`.
    fn taken_by_values(&self, of_key: &mut Columns, name: &str) -> Vec<usize> {
        let fields = &self.table.fields;
        let taken = |name: &str, kind: &Type| {
            position(fields, self.layout.projection.name(name))
                .filter(|at| !fields[*at].kind.takes(kind) && !kind.takes(&fields[*at].kind))
        };
        let mut all = Vec::new();
        match of_key {
            Columns::Each(columns) if self.layout.key_columns != KeyColumns::Struct => columns.retain(|field| {
                all.extend(taken(&field.name, &field.kind));
                taken(&field.name, &field.kind).is_none()
            }),
            _ => {
                all.extend(of_key.clone().into_type().and_then(|kind| taken(name, &kind)));
                if !all.is_empty() {
                    *of_key = Columns::Nothing;
                }
            }
        }
        all
    }

    fn schema(&self, key: SchemaKey) -> Result<&Arc<Schema>, (Reason, String)> {
        match self.schemas.get(&key) {
            Some(SchemaUse::Known(schema)) => Ok(schema),
            Some(SchemaUse::Rejected(reason, message)) => Err((*reason, message.clone())),
            None => Err((Reason::UnknownSchemaId, format!("{key} is not known"))),
        }
    }

    /// The columns that a side of a record makes.
    fn columns(&self, part: Part, format: Format) -> Result<Columns, (Reason, String)> {
        match part {
            Part::Null => Ok(Columns::Nothing),
            Part::Plain if format == Format::Json => Ok(Columns::Each(with_rescued(Vec::new()))),
            Part::Plain if format == Format::String => Ok(Columns::One(Type::String)),
            Part::Plain => Ok(Columns::One(Type::Binary)),
            Part::Schema { key, path, .. } => {
                let shape = self.schema(key)?.columns(path.unwrap_or(MessagePath::FIRST), self.layout.mapping);
                shape.map_err(|error| (Reason::IncompatibleSchema, error.chain()))
            }
        }
    }

    fn step(
        &self,
        part: Part,
        format: Format,
        shape: Columns,
        column: &str,
        open: &[usize],
    ) -> Result<Step, (Reason, String)> {
        let (fields, projection) = (&self.table.fields, self.layout.projection.as_ref());
        let name = Some(projection.name(column)).filter(|_| projection.takes(column));
        let named = || open.iter().copied().find(|index| Some(fields[*index].name.as_str()) == name);
        let as_one = column != "value" && self.layout.key_columns == KeyColumns::Struct;
        let target = match shape {
            Columns::Nothing => return Ok(Step::Nothing),
            Columns::Each(_) if !as_one => Target::Fields(open),
            Columns::One(_) | Columns::Each(_) => match named() {
                Some(index) => Target::One(index),
                // A field of the value's name has taken the column, or it is left out.
                None => return Ok(Step::Nothing),
            },
        };
        match (part, target) {
            (Part::Plain, Target::Fields(open)) if format == Format::Json => {
                let program = Program::schemaless(fields, open, projection);
                let program = program.map_err(|error| (Reason::IncompatibleSchema, error.chain()))?;
                Ok(Step::Program(Box::new(program), 0))
            }
            (Part::Plain, Target::One(index)) if format == Format::String => Ok(Step::Text(index)),
            (Part::Plain, Target::One(index)) => Ok(Step::Bytes(index)),
            (Part::Null | Part::Plain, _) => Ok(Step::Nothing),
            (Part::Schema { key, path, start }, target) => {
                let path = path.unwrap_or(MessagePath::FIRST);
                let program =
                    Program::compile(self.schema(key)?, path, fields, target, self.layout.mapping, projection);
                let program = program.map_err(|error| (Reason::IncompatibleSchema, error.chain()))?;
                Ok(Step::Program(Box::new(program), start))
            }
        }
    }
}

impl Step {
    fn filled(&self) -> Vec<usize> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Text(index) | Self::Bytes(index) => vec![*index],
            Self::Program(program, _) => program.filled(),
        }
    }

    #[inline]
    pub(super) fn run(&self, bytes: Option<&[u8]>, columns: &mut [Column]) -> Result<(), Failure> {
        let Some(bytes) = bytes else { return Ok(()) };
        match self {
            Self::Nothing => Ok(()),
            Self::Program(program, start) => {
                program.run(&bytes[*start..], columns).map_err(|(reason, message)| (reason, message.into()))
            }
            Self::Text(index) => match std::str::from_utf8(bytes) {
                Ok(text) => push(&mut columns[*index], text.as_bytes()),
                Err(_) => Err((Reason::TypeMismatch, "the text is not UTF-8".into())),
            },
            Self::Bytes(index) => push(&mut columns[*index], bytes),
        }
    }
}

fn push(column: &mut Column, bytes: &[u8]) -> Result<(), Failure> {
    let Column::Bytes(column) = column else {
        return Err((Reason::IncompatibleSchema, "the table's column holds neither text nor bytes".into()));
    };
    column.push(bytes);
    Ok(())
}

pub(super) fn plain_part(bytes: Option<&[u8]>) -> Part {
    if bytes.is_some() { Part::Plain } else { Part::Null }
}
