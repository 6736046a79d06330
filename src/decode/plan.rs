//! The decoder of one table: which schemas it knows, how they meet the table's columns, and the loop over a batch.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, RwLock};

use arrow::array::{ArrayRef, AsArray as _};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::columns::Column;
use super::combo::{Combo, Part, plain_part};
use super::evolution::evolved;
use super::filter::sift;
use super::framing::{Failure, SchemaKey, Which};
use super::json::RESCUED;
use super::json::infer::Inferred;
use super::layout::{Format, Layout, Metadata, Tombstones};
use super::metadata;
use super::schema::Schema;
use crate::error::{Error, Result};
use crate::model::decoded::{DecodedBatch, Reason, Reject};
use crate::model::offsets::NextOffset;
use crate::model::raw::{RawBatch, RawRecord};
use crate::model::schema::TableSchema;
use crate::ports::Verdicts;

/// What is known about a schema.
#[derive(Debug, Clone)]
pub enum SchemaUse {
    /// It.
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
    /// Nothing is decided: the batch comes back untouched, with what must be known or changed first.
    Needs(RawBatch, Box<Needs>),
    /// Nothing is decided: the batch comes back untouched. Its schema does not fit the table's, which is to be suspended
    /// for it; the path and both types.
    Misfit(RawBatch, String),
}

/// What a decoder lacks for a batch.
#[derive(Debug, Default)]
pub struct Needs {
    /// Schemas that it does not know.
    pub schemas: BTreeSet<SchemaKey>,
    /// The table with the columns that it lacks.
    pub table: Option<TableSchema>,
    /// True where the key's format is still to be decided.
    pub key_undecided: bool,
    /// True where the value's format is still to be decided.
    pub value_undecided: bool,
}

/// Decodes batches of one table under one table schema. Shared by the compute threads.
#[derive(Debug)]
pub struct Decoder {
    pub(super) layout: Arc<Layout>,
    pub(super) table: Arc<TableSchema>,
    arrow: SchemaRef,
    pub(super) sides: Sides,
    pub(super) schemas: HashMap<SchemaKey, SchemaUse>,
    pub(super) data: Vec<usize>,
    metadata: Vec<Option<Metadata>>,
    combos: RwLock<HashMap<(Part, Part), Arc<Combo>>>,
}

/// What one record came to.
enum Row {
    Done,
    Stopped(Arc<Combo>),
}

impl Decoder {
    /// A decoder for `table`, with all schemas known so far.
    #[must_use]
    pub fn new(
        layout: Arc<Layout>,
        table: Arc<TableSchema>,
        sides: Sides,
        mut schemas: HashMap<SchemaKey, SchemaUse>,
    ) -> Self {
        let kind = |name: &str| {
            Metadata::ALL.into_iter().find(|m| layout.metadata.contains(m) && m.name(layout.names) == name)
        };
        let metadata: Vec<_> = table.fields.iter().map(|field| kind(&field.name)).collect();
        let data = metadata.iter().enumerate().filter(|(_, m)| m.is_none()).map(|(index, _)| index).collect();
        let arrow = table.to_arrow();
        for (key, given) in [(SchemaKey::OfKeys, &layout.given.key), (SchemaKey::OfValues, &layout.given.value)] {
            schemas.extend(given.iter().map(|given| (key, SchemaUse::Known(Arc::clone(&given.schema)))));
        }
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
        self.decode_filtered(batch, incarnation, &|_| Ok(None))
    }

    /// As [`Decoder::decode`], less the rows that `filter` does not keep; where it says nothing, it keeps all.
    ///
    /// # Errors
    /// As [`Decoder::decode`], and those of `filter`.
    pub fn decode_filtered(
        &self,
        batch: RawBatch,
        incarnation: i32,
        filter: &dyn Fn(&RecordBatch) -> Result<Option<Verdicts>>,
    ) -> Result<Decoding> {
        let undecided = |format, len: fn(&RawRecord) -> i32| {
            format == Format::Auto && batch.records.iter().any(|record| len(record) >= 0)
        };
        let mut needs = Needs {
            key_undecided: undecided(self.sides.key, |record| record.key_len),
            value_undecided: undecided(self.sides.value, |record| record.value_len),
            ..Needs::default()
        };
        if needs.key_undecided || needs.value_undecided {
            return Ok(Decoding::Needs(batch, Box::new(needs)));
        }
        let mut columns: Vec<Column> = self.table.fields.iter().map(|field| Column::new(&field.kind)).collect();
        self.data.iter().for_each(|index| columns[*index].reserve(batch.records.len()));
        let mut rejected = Vec::new();
        let mut last: Option<((Part, Part), Arc<Combo>)> = None;
        let (mut rows, mut stopped) = (0, Vec::<Arc<Combo>>::new());
        for (index, record) in batch.records.iter().enumerate() {
            match self.row(&batch, record, &mut columns, &mut last) {
                Ok(Row::Done) => rows += 1,
                Ok(Row::Stopped(at)) if stopped.iter().any(|combo| Arc::ptr_eq(combo, &at)) => {}
                Ok(Row::Stopped(at)) => stopped.push(at),
                Err(failure) => {
                    self.data.iter().for_each(|column| columns[*column].truncate(rows));
                    rejected.push((index, failure));
                }
            }
        }
        if !stopped.is_empty() {
            return Ok(self.stop(batch, needs, &stopped));
        }
        let open = match last.as_ref().map(|(_, combo)| combo.as_ref()) {
            Some(Combo::Read { open, .. }) if self.sides.value == Format::Json => open.as_slice(),
            _ => &[],
        };
        if let Some(table) = self.inferred(&batch, &columns, &rejected, open) {
            needs.table = Some(table);
            return Ok(Decoding::Needs(batch, Box::new(needs)));
        }
        let rows = self.finish(&batch, columns, &rejected, incarnation)?;
        let rejects = rejected.into_iter().map(|(index, failure)| reject(&batch, batch.records[index], failure));
        let mut decoded = DecodedBatch {
            first: batch.first,
            next: batch.next,
            attempt: batch.attempt,
            leader_epoch: batch.last_epoch(),
            incarnation,
            newest_ms: batch.records.iter().map(|record| record.timestamp_ms).max(),
            schema: Arc::clone(&self.table),
            rows,
            rejects: rejects.collect(),
            filtered: Vec::new(),
            source: batch.source.clone(),
        };
        if decoded.rows.num_rows() > 0
            && let Some(verdicts) = filter(&decoded.rows)?
        {
            sift(&mut decoded, &batch, &verdicts)?;
        }
        Ok(Decoding::Done(decoded))
    }

    /// What a batch lacks whose records have been stopped so.
    fn stop(&self, batch: RawBatch, mut needs: Needs, stopped: &[Arc<Combo>]) -> Decoding {
        for combo in stopped {
            match combo.as_ref() {
                Combo::Misfit(text) => return Decoding::Misfit(batch, text.clone()),
                Combo::Needs(schemas, wanted) => {
                    needs.schemas.extend(schemas);
                    if let Some(wanted) = wanted {
                        let table = needs.table.as_ref().unwrap_or(&self.table);
                        // What does not go together is found when the first of both is there.
                        needs.table = evolved(table, wanted, &self.layout).ok().flatten().or(needs.table);
                    }
                }
                Combo::Read { .. } | Combo::Rejected(..) => {}
            }
        }
        Decoding::Needs(batch, Box::new(needs))
    }

    /// The table with columns for what records of JSON without a schema bring and no column takes; `None` where there
    /// is nothing of it.
    fn inferred(
        &self,
        batch: &RawBatch,
        columns: &[Column],
        rejected: &[(usize, Failure)],
        open: &[usize],
    ) -> Option<TableSchema> {
        let place = open.iter().find(|index| self.table.fields[**index].name == RESCUED)?;
        let Column::Bytes(rescued) = &columns[*place] else { return None };
        let mut inferred = Inferred::new(&self.table.fields, open, &self.layout.projection);
        let mut seen = false;
        for (row, record) in kept(batch, rejected).enumerate() {
            // A row that lost nothing brings nothing new.
            if !rescued.get(row).is_empty()
                && let Some(value) = batch.value(record)
            {
                inferred.see(value);
                seen = true;
            }
        }
        let mut wanted = seen.then(|| TableSchema::of(inferred.columns()))?;
        // Columns that are not the value's stay as they are.
        let others = self.table.fields.iter().filter(|field| wanted.field(&field.name).is_none());
        wanted.fields.extend(others.cloned().collect::<Vec<_>>());
        evolved(&self.table, &wanted, &self.layout).unwrap_or_else(|_| self.as_far_as_it_goes(&wanted))
    }

    /// The table with those of `wanted`'s columns that go with the others; `None` where no more do.
    fn as_far_as_it_goes(&self, wanted: &TableSchema) -> Option<TableSchema> {
        let mut changed = None;
        for field in &wanted.fields {
            let table: &TableSchema = changed.as_ref().unwrap_or(&self.table);
            let others = table.fields.iter().filter(|other| other.name != field.name);
            let fields = others.chain([field]).cloned().collect();
            let one = evolved(table, &TableSchema::of(fields), &self.layout);
            changed = one.ok().flatten().or(changed);
        }
        changed
    }

    #[inline]
    fn row(
        &self,
        batch: &RawBatch,
        record: &RawRecord,
        columns: &mut [Column],
        last: &mut Option<((Part, Part), Arc<Combo>)>,
    ) -> Result<Row, Failure> {
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
        let headers = batch.headers(record);
        let (last_key, last_value) = last.as_ref().map(|(parts, _)| *parts).unzip();
        let key_part = match self.key_is_read() {
            true => self.part(Which::Key, key, headers.clone(), last_key)?,
            false => plain_part(key),
        };
        let parts = (key_part, self.part(Which::Value, value, headers, last_value)?);
        if last.as_ref().is_none_or(|(known, _)| *known != parts) {
            *last = Some((parts, self.combo(parts)));
        }
        let Some((_, combo)) = last else { return Err((Reason::IncompatibleSchema, "nothing reads it".into())) };
        match combo.as_ref() {
            Combo::Rejected(reason, message) => Err((*reason, message.clone().into())),
            Combo::Needs(..) | Combo::Misfit(_) => Ok(Row::Stopped(Arc::clone(combo))),
            Combo::Read { key: key_step, value: value_step, absent, .. } => {
                value_step.run(value, columns)?;
                key_step.run(key, columns)?;
                absent.iter().for_each(|absent| absent.fill(columns));
                Ok(Row::Done)
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

    fn finish(
        &self,
        batch: &RawBatch,
        columns: Vec<Column>,
        rejected: &[(usize, Failure)],
        incarnation: i32,
    ) -> Result<RecordBatch> {
        let kept: Cow<'_, [RawRecord]> = match rejected {
            [] => Cow::Borrowed(&batch.records),
            rejected => Cow::Owned(kept(batch, rejected).copied().collect()),
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
        let rows = RecordBatchOptions::new().with_row_count(Some(kept.len()));
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow), arrays, &rows)
            .map_err(|e| Error::bug("put columns into a batch").with_source(e))
    }
}

/// The records that are rows; `rejected` are the others, in order.
fn kept<'a>(batch: &'a RawBatch, rejected: &'a [(usize, Failure)]) -> impl Iterator<Item = &'a RawRecord> {
    let mut out = rejected.iter().map(|(index, _)| *index).peekable();
    let kept = batch.records.iter().enumerate().filter(move |(index, _)| out.next_if_eq(index).is_none());
    kept.map(|(_, record)| record)
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
    batch.filtered.retain(|offset| *offset < at);
}

pub(super) fn reject(batch: &RawBatch, record: RawRecord, (reason, message): Failure) -> Reject {
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
