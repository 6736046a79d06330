//! Dead letters read back: of which records they are, why, and the records as they came.

use std::collections::BTreeMap;

use arrow::array::{
    Array, ArrayRef, AsArray, Int32Array, Int64Array, MapArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::TimestampMicrosecondType;

use super::{INCARNATION, LEADER_EPOCH, TIMESTAMP_MS};
use crate::error::{Error, Result};
use crate::model::ids::TopicPartition;
use crate::model::raw::{Headers, RawBatch, RawRecord, TimestampType};
use crate::model::record::RecordId;

/// Rows of a dead-letter table.
#[derive(Debug)]
pub struct Letters {
    rejected: TimestampMicrosecondArray,
    reasons: StringArray,
    messages: Option<StringArray>,
    details: MapArray,
    topics: StringArray,
    partitions: Int32Array,
    offsets: Int64Array,
    source: StructArray,
}

impl Letters {
    /// The letters in `rows`, which have the columns of [`super::table_schema`], or at least those of
    /// [`super::heads`].
    ///
    /// # Errors
    /// `Corrupt` where they do not.
    pub fn of(rows: &RecordBatch) -> Result<Self> {
        let column = |name| rows.column_by_name(name).ok_or_else(|| lacking(name));
        let source = column("source_record")?.as_struct_opt().ok_or_else(|| lacking("source_record"))?;
        let part = |name| source.column_by_name(name).ok_or_else(|| lacking(name));
        let text = |array: &ArrayRef, name| array.as_string_opt::<i32>().cloned().ok_or_else(|| lacking(name));
        let rejected = column("error_timestamp")?.as_primitive_opt::<TimestampMicrosecondType>();
        let details = column("error_details")?.as_map_opt().filter(|map| {
            let is_text = |array: &ArrayRef| array.as_string_opt::<i32>().is_some();
            is_text(map.keys()) && is_text(map.values())
        });
        Ok(Self {
            rejected: rejected.cloned().ok_or_else(|| lacking("error_timestamp"))?,
            reasons: text(column("error_code")?, "error_code")?,
            messages: rows.column_by_name("error_message").map(|array| text(array, "error_message")).transpose()?,
            details: details.cloned().ok_or_else(|| lacking("error_details"))?,
            topics: text(part("topic")?, "topic")?,
            partitions: part("partition")?.as_primitive_opt().cloned().ok_or_else(|| lacking("partition"))?,
            offsets: part("offset")?.as_primitive_opt().cloned().ok_or_else(|| lacking("offset"))?,
            source: source.clone(),
        })
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.source.len()
    }

    /// True where there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The record that a letter is of; `None` where the row does not say it, as another engine may have written it.
    #[must_use]
    pub fn id(&self, row: usize) -> Option<RecordId> {
        let is_whole = self.source.is_valid(row)
            && self.topics.is_valid(row)
            && self.partitions.is_valid(row)
            && self.offsets.is_valid(row);
        let incarnation = i32::try_from(self.detail(row, INCARNATION).unwrap_or(0)).ok()?;
        is_whole.then(|| RecordId {
            source: TopicPartition::new(self.topics.value(row), self.partitions.value(row)),
            incarnation,
            offset: self.offsets.value(row),
        })
    }

    /// True where it says its topic's incarnation itself. Those of early versions do not, and [`Letters::id`] takes 0.
    #[must_use]
    pub fn says_incarnation(&self, row: usize) -> bool {
        self.detail(row, INCARNATION).is_some()
    }

    /// Why: mostly the name of a [`crate::model::decoded::Reason`].
    #[must_use]
    pub fn reason(&self, row: usize) -> &str {
        if self.reasons.is_valid(row) { self.reasons.value(row) } else { "" }
    }

    /// The detail in words; empty where only heads were read.
    #[must_use]
    pub fn message(&self, row: usize) -> &str {
        self.messages.as_ref().filter(|messages| messages.is_valid(row)).map_or("", |messages| messages.value(row))
    }

    /// When it was rejected, milliseconds since the epoch.
    #[must_use]
    pub fn rejected_ms(&self, row: usize) -> Option<i64> {
        self.rejected.is_valid(row).then(|| self.rejected.value(row).div_euclid(1000))
    }

    /// What `error_details` has.
    #[must_use]
    pub fn details(&self, row: usize) -> BTreeMap<String, String> {
        if self.details.is_null(row) {
            return BTreeMap::new();
        }
        let entries = self.details.value(row);
        let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1).as_string::<i32>());
        let valid = (0..entries.len()).filter(|entry| keys.is_valid(*entry) && values.is_valid(*entry));
        valid.map(|entry| (keys.value(entry).to_owned(), values.value(entry).to_owned())).collect()
    }

    fn detail(&self, row: usize, name: &str) -> Option<i64> {
        if self.details.is_null(row) {
            return None;
        }
        let range = self.details.value_offsets();
        let entries = usize::try_from(range[row]).ok()?..usize::try_from(range[row + 1]).ok()?;
        let (keys, values) = (self.details.keys().as_string::<i32>(), self.details.values().as_string::<i32>());
        entries
            .into_iter()
            .find(|entry| keys.is_valid(*entry) && keys.value(*entry) == name && values.is_valid(*entry))
            .and_then(|entry| values.value(entry).parse().ok())
    }

    /// Appends the record of a letter to a batch of its partition.
    ///
    /// # Errors
    /// `Corrupt` where the batch would grow beyond what it can address, or only heads were read.
    pub fn push(&self, row: usize, batch: &mut RawBatch) -> Result<()> {
        let part = |name| self.source.column_by_name(name).ok_or_else(|| lacking(name));
        let large = |_| Error::corrupt("put letters into a batch: they are larger than a batch can be");
        let (key, value) = (part("key")?, part("value")?);
        let bytes = |array: &ArrayRef, name| array.as_binary_opt::<i32>().cloned().ok_or_else(|| lacking(name));
        let (key, value) = (bytes(key, "key")?, bytes(value, "value")?);
        let (timestamp_ms, timestamp_type) = self.timestamp(row)?;
        let start = u32::try_from(batch.bytes.len()).map_err(large)?;
        let mut append = |array: &arrow::array::BinaryArray| {
            if array.is_null(row) {
                return Ok(-1);
            }
            batch.bytes.extend_from_slice(array.value(row));
            i32::try_from(array.value(row).len()).map_err(large)
        };
        let (key_len, value_len) = (append(&key)?, append(&value)?);
        let before = batch.bytes.len();
        push_headers(row, part("headers")?, &mut batch.bytes)?;
        let headers_len = u32::try_from(batch.bytes.len() - before).map_err(large)?;
        u32::try_from(batch.bytes.len()).map_err(large)?;
        let leader_epoch = self.detail(row, LEADER_EPOCH).and_then(|epoch| i32::try_from(epoch).ok()).unwrap_or(-1);
        let offset = self.offsets.value(row);
        batch.records.push(RawRecord {
            offset,
            timestamp_ms,
            leader_epoch,
            start,
            key_len,
            value_len,
            headers_len,
            timestamp_type,
        });
        batch.next.0 = batch.next.0.max(offset + 1);
        Ok(())
    }

    fn timestamp(&self, row: usize) -> Result<(i64, TimestampType)> {
        let part = |name| self.source.column_by_name(name).ok_or_else(|| lacking(name));
        let times = part("timestamp")?.as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| lacking("timestamp"))?;
        let types = part("timestamp_type")?.as_string_opt::<i32>().ok_or_else(|| lacking("timestamp_type"))?;
        let word = if types.is_valid(row) { types.value(row) } else { "" };
        let known = [TimestampType::CreateTime, TimestampType::LogAppendTime];
        let kind = known.into_iter().find(|known| known.as_str() == word).unwrap_or(TimestampType::NotAvailable);
        let held = times.is_valid(row).then(|| times.value(row).div_euclid(1000));
        Ok((held.or_else(|| self.detail(row, TIMESTAMP_MS)).unwrap_or(-1), kind))
    }
}

fn push_headers(row: usize, column: &ArrayRef, arena: &mut Vec<u8>) -> Result<()> {
    let list = column.as_list_opt::<i32>().ok_or_else(|| lacking("headers"))?;
    if list.is_null(row) {
        return Ok(());
    }
    let entries = list.value(row);
    let entries = entries.as_struct_opt().filter(|entries| entries.num_columns() == 2);
    let entries = entries.ok_or_else(|| lacking("headers"))?;
    let keys = entries.column(0).as_string_opt::<i32>().ok_or_else(|| lacking("headers"))?;
    let values = entries.column(1).as_binary_opt::<i32>().ok_or_else(|| lacking("headers"))?;
    for entry in (0..entries.len()).filter(|entry| entries.is_valid(*entry)) {
        let value = values.is_valid(entry).then(|| values.value(entry));
        Headers::push(arena, keys.value(entry).as_bytes(), value);
    }
    Ok(())
}

fn lacking(name: &str) -> Error {
    Error::corrupt(format!("read dead letters: the table has no column `{name}` as frazil makes it"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::new_null_array;

    use super::*;
    use crate::decode::dead_letters::{heads, rows, table_schema};
    use crate::model::decoded::{DecodedBatch, Reason, Reject};
    use crate::model::ids::Attempt;
    use crate::model::offsets::NextOffset;
    use crate::model::schema::TableSchema;

    type Part<'a> = Option<&'a [u8]>;

    /// Appends a record; its offset is its number.
    fn push(batch: &mut RawBatch, key: Part<'_>, value: Part<'_>, headers: &[(&str, Part<'_>)], rest: (i64, i32)) {
        let len = |bytes: Part<'_>| bytes.map_or(-1, |bytes| i32::try_from(bytes.len()).unwrap());
        let start = batch.bytes.len();
        batch.bytes.extend(key.into_iter().chain(value).flatten());
        let body = batch.bytes.len();
        headers.iter().for_each(|(name, value)| Headers::push(&mut batch.bytes, name.as_bytes(), *value));
        let kind = if rest.0 < 0 { TimestampType::NotAvailable } else { TimestampType::CreateTime };
        batch.records.push(RawRecord {
            offset: i64::try_from(batch.records.len()).unwrap(),
            timestamp_ms: rest.0,
            leader_epoch: rest.1,
            start: u32::try_from(start).unwrap(),
            key_len: len(key),
            value_len: len(value),
            headers_len: u32::try_from(batch.bytes.len() - body).unwrap(),
            timestamp_type: kind,
        });
        batch.next = NextOffset(i64::try_from(batch.records.len()).unwrap());
    }

    fn of(source: &TopicPartition) -> RawBatch {
        RawBatch::new(source.clone(), Attempt::default(), NextOffset(0))
    }

    #[test]
    fn a_record_comes_back_out_of_its_letter() {
        let source = TopicPartition::new("orders", 3);
        let mut raw = of(&source);
        push(&mut raw, Some(b"k"), Some(b"value"), &[("a", Some(b"1")), ("a", None), ("", Some(b""))], (1_234_567, 7));
        push(&mut raw, None, Some(b""), &[], (-1, -1));
        push(&mut raw, Some(b""), None, &[], (i64::MAX / 2, 0));
        let owned = |bytes: Part<'_>| bytes.map(<[u8]>::to_vec);
        let reject = |record: &RawRecord| Reject {
            reason: Reason::Truncated,
            message: "words".to_owned(),
            record: *record,
            key: owned(raw.key(record)),
            value: owned(raw.value(record)),
            headers: raw.headers(record).map(|(key, value)| (key.to_vec(), owned(value))).collect(),
        };
        let table = table_schema();
        let batch = DecodedBatch {
            source: source.clone(),
            attempt: raw.attempt,
            first: raw.first,
            next: raw.next,
            leader_epoch: None,
            newest_ms: None,
            incarnation: 2,
            schema: Arc::new(TableSchema::default()),
            rows: RecordBatch::new_empty(TableSchema::default().to_arrow()),
            rejects: raw.records.iter().map(reject).collect(),
            filtered: Vec::new(),
        };
        let written = rows(&table, &batch, 1_700_000_000_123).unwrap();
        let letters = Letters::of(&written).unwrap();
        let mut again = of(&source);
        for row in 0..letters.len() {
            letters.push(row, &mut again).unwrap();
            let id = letters.id(row).unwrap();
            assert_eq!(id.to_string(), format!("orders@2/3/{row}"));
            assert_eq!((letters.reason(row), letters.message(row)), ("truncated", "words"));
            assert_eq!(letters.rejected_ms(row), Some(1_700_000_000_123));
            assert!(letters.says_incarnation(row));
        }
        assert_eq!((&again.bytes, &again.records, again.next), (&raw.bytes, &raw.records, raw.next));
        assert_eq!(letters.details(2)["timestamp_ms"], (i64::MAX / 2).to_string());
        assert_eq!(heads(&table).fields.len(), 4);
    }

    #[test]
    fn a_row_of_another_engine_is_no_letter() {
        let table = table_schema();
        let schema = table.to_arrow();
        let nulls = schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
        let letters = Letters::of(&RecordBatch::try_new(Arc::clone(&schema), nulls).unwrap()).unwrap();
        assert_eq!((letters.id(0), letters.reason(0), letters.rejected_ms(0)), (None, "", None));
        assert!(letters.details(0).is_empty() && !letters.says_incarnation(0));
        let other = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        assert!(Letters::of(&other).unwrap_err().to_string().contains("source_record"));
    }
}
