//! The decoder of one table: which schemas it knows, how they meet the table's columns, and the loop over a batch.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use arrow::array::{ArrayRef, AsArray as _};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::avro::program::Program;
use super::avro::schema::{Kind, Schema};
use super::columns::Column;
use super::layout::{Format, KeyColumns, Layout, Metadata, Tombstones};
use super::metadata;
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reason, Reject};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord};
use crate::model::schema::TableSchema;

/// What is known about a schema id.
#[derive(Debug, Clone)]
pub enum SchemaUse {
    /// Its schema.
    Known(Arc<Schema>),
    /// Records with it are rejected, for this reason and detail.
    Rejected(Reason, String),
}

/// How keys and values are read, once decided; `Auto` while not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sides {
    /// Keys.
    pub key: Format,
    /// Values.
    pub value: Format,
}

/// What decoding a batch came to.
#[derive(Debug)]
pub enum Decoding {
    /// Every record is decided.
    Done(DecodedBatch),
    /// Nothing is decided: these must be known first.
    Needs {
        /// The batch, untouched.
        batch: RawBatch,
        /// Schema ids that the decoder does not know.
        ids: BTreeSet<u32>,
        /// True where the key's format is still to be decided.
        key_undecided: bool,
        /// True where the value's format is still to be decided.
        value_undecided: bool,
    },
}

/// Decodes batches of one table under one table schema. Shared by the compute threads.
#[derive(Debug)]
pub struct Decoder {
    layout: Arc<Layout>,
    table: Arc<TableSchema>,
    arrow: SchemaRef,
    sides: Sides,
    schemas: HashMap<u32, SchemaUse>,
    data: Vec<usize>,
    metadata: Vec<Option<Metadata>>,
    combos: RwLock<HashMap<(Part, Part), Arc<Combo>>>,
}

/// What one side of a record is, as far as the way to read it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part {
    Null,
    Plain,
    Schema(u32),
}

type Failure = (Reason, Cow<'static, str>);

/// How records with one kind of key and one kind of value are read.
#[derive(Debug)]
enum Combo {
    Read { key: Step, value: Step, absent: Vec<usize> },
    Rejected(Reason, String),
}

#[derive(Debug)]
enum Step {
    Nothing,
    Text(usize),
    Bytes(usize),
    Program(Program),
}

impl Decoder {
    /// A decoder for `table`, with all schema ids known so far.
    #[must_use]
    pub fn new(layout: Arc<Layout>, table: Arc<TableSchema>, sides: Sides, schemas: HashMap<u32, SchemaUse>) -> Self {
        let kind = |name: &str| {
            Metadata::ALL.into_iter().find(|m| layout.metadata.contains(m) && m.name(layout.names) == name)
        };
        let metadata: Vec<_> = table.fields.iter().map(|field| kind(&field.name)).collect();
        let data = metadata.iter().enumerate().filter(|(_, m)| m.is_none()).map(|(index, _)| index).collect();
        let arrow = table.to_arrow();
        Self { layout, table, arrow, sides, schemas, data, metadata, combos: RwLock::default() }
    }

    /// The table schema that rows come in.
    #[must_use]
    pub fn table(&self) -> &Arc<TableSchema> {
        &self.table
    }

    /// Decides every record of `batch`, or says what must be known first. `incarnation` is the topic's.
    ///
    /// # Errors
    /// `Bug` only: what is wrong with records is in the result.
    pub fn decode(&self, batch: RawBatch, incarnation: i32) -> Result<Decoding> {
        let ids = self.unknown_ids(&batch);
        let key_undecided = self.sides.key == Format::Auto && batch.records.iter().any(|r| r.key_len >= 0);
        let value_undecided = self.sides.value == Format::Auto && batch.records.iter().any(|r| r.value_len >= 0);
        if key_undecided || value_undecided || !ids.is_empty() {
            return Ok(Decoding::Needs { batch, ids, key_undecided, value_undecided });
        }
        let mut columns: Vec<Column> = self.table.fields.iter().map(|field| Column::new(&field.kind)).collect();
        self.data.iter().for_each(|index| columns[*index].reserve(batch.records.len()));
        let mut rejected = Vec::new();
        let mut last: Option<((Part, Part), Arc<Combo>)> = None;
        let mut rows = 0;
        for (index, record) in batch.records.iter().enumerate() {
            match self.row(&batch, record, &mut columns, &mut last) {
                Ok(()) => rows += 1,
                Err(failure) => {
                    self.data.iter().for_each(|column| columns[*column].truncate(rows));
                    rejected.push((index, failure));
                }
            }
        }
        let rows = self.finish(&batch, columns, &rejected, incarnation)?;
        let rejects = rejected.into_iter().map(|(index, failure)| reject(&batch, index, failure)).collect();
        Ok(Decoding::Done(DecodedBatch {
            first: batch.first,
            next: batch.next,
            attempt: batch.attempt,
            leader_epoch: batch.last_epoch(),
            newest_ms: batch.records.iter().map(|record| record.timestamp_ms).max(),
            schema: Arc::clone(&self.table),
            rows,
            rejects,
            source: batch.source,
        }))
    }

    fn unknown_ids(&self, batch: &RawBatch) -> BTreeSet<u32> {
        let mut ids = BTreeSet::new();
        let mut last = None;
        let mut see = |bytes: Option<&[u8]>| {
            let id = bytes.and_then(wire_schema_id);
            if let Some(id) = id
                && last != Some(id)
            {
                last = Some(id);
                if !self.schemas.contains_key(&id) {
                    ids.insert(id);
                }
            }
        };
        if self.sides.value == Format::Registry {
            batch.records.iter().for_each(|record| see(batch.value(record)));
        }
        if self.sides.key == Format::Registry && self.key_is_read() {
            batch.records.iter().for_each(|record| see(batch.key(record)));
        }
        ids
    }

    fn key_is_read(&self) -> bool {
        !matches!(self.layout.key_columns, KeyColumns::None | KeyColumns::Raw)
    }

    #[inline]
    fn row(
        &self,
        batch: &RawBatch,
        record: &RawRecord,
        columns: &mut [Column],
        last: &mut Option<((Part, Part), Arc<Combo>)>,
    ) -> Result<(), Failure> {
        let (key, value) = (batch.key(record), batch.value(record));
        let bytes = key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + record.headers_len as usize;
        if bytes > self.layout.record_bytes_max {
            return Err((
                Reason::TooLarge,
                format!("{bytes} bytes, {} are allowed", self.layout.record_bytes_max).into(),
            ));
        }
        if value.is_none() && (key.is_none() || self.layout.tombstones == Tombstones::DeadLetter) {
            return Err((Reason::NullValue, "no value".into()));
        }
        if metadata::timestamp_micros(record).is_err() {
            return Err((Reason::ValueOutOfRange, "the timestamp lies outside microseconds".into()));
        }
        let key_part = if self.key_is_read() { part(self.sides.key, key)? } else { plain_part(key) };
        let parts = (key_part, part(self.sides.value, value)?);
        if last.as_ref().is_none_or(|(known, _)| *known != parts) {
            *last = Some((parts, self.combo(parts)));
        }
        let Some((_, combo)) = last else { return Ok(()) };
        match combo.as_ref() {
            Combo::Rejected(reason, message) => Err((*reason, message.clone().into())),
            Combo::Read { key: key_step, value: value_step, absent } => {
                value_step.run(value, columns)?;
                key_step.run(key, columns)?;
                absent.iter().for_each(|index| columns[*index].push_null());
                Ok(())
            }
        }
    }

    fn combo(&self, parts: (Part, Part)) -> Arc<Combo> {
        if let Some(known) = self.combos.read().ok().and_then(|combos| combos.get(&parts).cloned()) {
            return known;
        }
        let combo = Arc::new(self.compile(parts).unwrap_or_else(|(reason, message)| Combo::Rejected(reason, message)));
        if let Ok(mut combos) = self.combos.write() {
            combos.insert(parts, Arc::clone(&combo));
        }
        combo
    }

    fn compile(&self, (key, value): (Part, Part)) -> Result<Combo, (Reason, String)> {
        let value = self.step(value, self.sides.value, "value", self.data.clone(), false)?;
        let filled = value.filled();
        let open: Vec<usize> = self.data.iter().copied().filter(|index| !filled.contains(index)).collect();
        let name = if self.table.field("key_key").is_some() { "key_key" } else { "key" };
        let key = match self.layout.key_columns {
            KeyColumns::None => Step::Nothing,
            KeyColumns::Raw => self.step(key, Format::Bytes, name, open, false)?,
            KeyColumns::Flatten => self.step(key, self.sides.key, name, open, false)?,
            KeyColumns::Struct => self.step(key, self.sides.key, name, open, true)?,
        };
        let filled: Vec<usize> = filled.into_iter().chain(key.filled()).collect();
        let absent: Vec<usize> = self.data.iter().copied().filter(|index| !filled.contains(index)).collect();
        if let Some(index) = absent.iter().find(|index| self.table.fields[**index].required) {
            let name = &self.table.fields[*index].name;
            return Err((Reason::IncompatibleSchema, format!("required column `{name}` has no value")));
        }
        Ok(Combo::Read { key, value, absent })
    }

    fn step(
        &self,
        part: Part,
        format: Format,
        column: &str,
        open: Vec<usize>,
        single: bool,
    ) -> Result<Step, (Reason, String)> {
        let named = || open.iter().copied().find(|index| self.table.fields[*index].name == column);
        let schema = match part {
            Part::Null => return Ok(Step::Nothing),
            Part::Plain => {
                let Some(index) = named() else { return Ok(Step::Nothing) };
                return Ok(if format == Format::String { Step::Text(index) } else { Step::Bytes(index) });
            }
            Part::Schema(id) => match self.schemas.get(&id) {
                Some(SchemaUse::Known(schema)) => schema,
                Some(SchemaUse::Rejected(reason, message)) => return Err((*reason, message.clone())),
                None => return Err((Reason::UnknownSchemaId, format!("schema {id} is not known"))),
            },
        };
        let fields = &self.table.fields;
        let program = match &schema.kind {
            Kind::Record(record) if !single => Program::compile(record, fields, &open, self.layout.mapping),
            _ => match named() {
                Some(index) => Program::compile_single(schema, fields, index, self.layout.mapping),
                None => return Ok(Step::Nothing),
            },
        };
        program.map(Step::Program).map_err(|error| (Reason::IncompatibleSchema, error.chain()))
    }

    fn finish(
        &self,
        batch: &RawBatch,
        columns: Vec<Column>,
        rejected: &[(usize, Failure)],
        incarnation: i32,
    ) -> Result<RecordBatch> {
        let kept: Cow<'_, [RawRecord]> = if rejected.is_empty() {
            Cow::Borrowed(&batch.records)
        } else {
            let mut out = rejected.iter().map(|(index, _)| *index).peekable();
            let kept = batch.records.iter().enumerate().filter(|(index, _)| out.next_if_eq(index).is_none());
            Cow::Owned(kept.map(|(_, record)| *record).collect())
        };
        let arrays = columns
            .into_iter()
            .zip(&self.metadata)
            .zip(self.arrow.fields())
            .map(|((column, kind), field)| match kind {
                Some(kind) => metadata::column(*kind, self.layout.names, batch, &kept, incarnation, field.data_type()),
                None => column.finish(field.data_type()),
            })
            .collect::<Result<Vec<ArrayRef>>>()?;
        RecordBatch::try_new(Arc::clone(&self.arrow), arrays)
            .map_err(|e| Error::bug("put columns into a batch").with_source(e))
    }
}

impl Step {
    fn filled(&self) -> Vec<usize> {
        match self {
            Self::Nothing => Vec::new(),
            Self::Text(index) | Self::Bytes(index) => vec![*index],
            Self::Program(program) => program.filled().collect(),
        }
    }

    #[inline]
    fn run(&self, bytes: Option<&[u8]>, columns: &mut [Column]) -> Result<(), Failure> {
        let Some(bytes) = bytes else { return Ok(()) };
        match self {
            Self::Nothing => Ok(()),
            Self::Program(program) => {
                program.run(&bytes[WIRE_PREFIX..], columns).map_err(|(reason, message)| (reason, message.into()))
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

/// Cuts a batch off before its first reject, where its table is to be suspended at that record.
pub fn cut_at_reject(layout: &Layout, batch: &mut DecodedBatch) {
    let Some(at) = batch.rejects.first().map(|reject| reject.record.offset) else { return };
    let offsets = batch.rows.column_by_name(&Metadata::Offset.name(layout.names));
    let offsets = offsets.and_then(|column| column.as_primitive_opt::<Int64Type>());
    let rows = offsets.map_or(0, |offsets| offsets.values().partition_point(|offset| *offset < at));
    batch.rows = batch.rows.slice(0, rows);
    batch.next = NextOffset(at);
    batch.rejects.clear();
}

/// Bytes before the payload in Confluent's wire format: magic byte and schema id.
const WIRE_PREFIX: usize = 5;

/// The schema id in Confluent's wire format, where the bytes begin like it.
#[must_use]
pub fn wire_schema_id(bytes: &[u8]) -> Option<u32> {
    match bytes {
        [0, a, b, c, d, ..] => Some(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => None,
    }
}

fn part(format: Format, bytes: Option<&[u8]>) -> Result<Part, Failure> {
    match (format, bytes) {
        (Format::None, _) | (_, None) => Ok(Part::Null),
        (Format::Registry, Some(bytes)) => match wire_schema_id(bytes) {
            Some(id) => Ok(Part::Schema(id)),
            None if bytes.len() < WIRE_PREFIX && bytes.first().is_none_or(|magic| *magic == 0) => {
                Err((Reason::Truncated, "shorter than the wire format's prefix".into()))
            }
            None => Err((Reason::BadMagicByte, "the first byte is not 0".into())),
        },
        _ => Ok(Part::Plain),
    }
}

fn plain_part(bytes: Option<&[u8]>) -> Part {
    if bytes.is_some() { Part::Plain } else { Part::Null }
}

fn reject(batch: &RawBatch, index: usize, (reason, message): Failure) -> Reject {
    let record = batch.records[index];
    let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    Reject {
        reason,
        message: message.into_owned(),
        record,
        key: owned(batch.key(&record)),
        value: owned(batch.value(&record)),
        headers: batch.headers(&record).map(|(key, value)| (key.to_vec(), owned(value))).collect(),
    }
}
