//! Which record: the identity that a row has from its topic, its one spelling for people, its columns, and sets of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};

use super::ids::TopicPartition;
use crate::error::{Error, ErrorKind};

/// A record's place in Kafka, written `topic/partition/offset`, or `topic@1/partition/offset` where the topic was made
/// anew once: `@` stands in no topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Topic and partition.
    pub source: TopicPartition,
    /// How often the topic was declared made anew before it.
    pub incarnation: i32,
    /// Its offset.
    pub offset: i64,
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source.topic)?;
        if self.incarnation > 0 {
            write!(f, "@{}", self.incarnation)?;
        }
        write!(f, "/{}/{}", self.source.partition, self.offset)
    }
}

impl FromStr for RecordId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong =
            || Error::new(ErrorKind::InvalidRequest, format!("`{text}` is not of the form topic/partition/offset"));
        let mut parts = text.rsplitn(3, '/');
        let (offset, partition, topic) = (parts.next(), parts.next(), parts.next());
        let number = |part: Option<&str>| part.and_then(|part| part.parse::<i64>().ok()).filter(|number| *number >= 0);
        let (Some(offset), Some(partition)) = (number(offset), number(partition)) else { return Err(wrong()) };
        let (topic, incarnation) = match topic.and_then(|topic| topic.rsplit_once('@')) {
            Some((topic, incarnation)) => (Some(topic), number(Some(incarnation)).ok_or_else(wrong)?),
            None => (topic, 0),
        };
        let topic = topic.filter(|topic| !topic.is_empty()).ok_or_else(wrong)?;
        let small = |number: i64| i32::try_from(number).map_err(|_| wrong());
        let (partition, incarnation) = (small(partition)?, small(incarnation)?);
        Ok(Self { source: TopicPartition::new(topic, partition), incarnation, offset })
    }
}

/// The columns of a record's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordColumns {
    /// The topic.
    pub topic: TopicOf,
    /// Column of the partition.
    pub partition: String,
    /// Column of the offset.
    pub offset: String,
    /// Column of how often the topic was declared made anew, where the table has one.
    pub incarnation: Option<String>,
}

/// Where a row's topic stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicOf {
    /// All rows are of this one.
    One(Arc<str>),
    /// In this column.
    Column(String),
}

/// Which records rows are of.
#[derive(Debug)]
pub struct RecordIds<'a> {
    topic: Result<&'a str, StringArray>,
    partitions: Int32Array,
    offsets: Int64Array,
    incarnations: Option<Int32Array>,
}

impl RecordColumns {
    /// The columns by name.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let topic = match &self.topic {
            TopicOf::One(_) => None,
            TopicOf::Column(name) => Some(name),
        };
        let further = topic.into_iter().chain(&self.incarnation);
        [&self.partition, &self.offset].into_iter().chain(further).map(String::as_str).collect()
    }

    /// Which records `rows` are of. A table that had no incarnation yet has its first.
    ///
    /// # Errors
    /// `Corrupt` where another column is missing, or is of another type.
    pub fn ids(&self, rows: &RecordBatch) -> Result<RecordIds<'_>, Error> {
        let column = |name: &str, kind: &DataType| -> Result<ArrayRef, Error> {
            let lacking = || Error::corrupt(format!("rows have no column `{name}`, which says their records"));
            let unfit =
                |e| Error::corrupt(format!("column `{name}` of a record's identity has another type")).with_source(e);
            cast(rows.column_by_name(name).ok_or_else(lacking)?, kind).map_err(unfit)
        };
        let incarnation = self.incarnation.as_ref().filter(|name| rows.column_by_name(name).is_some());
        let incarnations = incarnation.map(|name| column(name, &DataType::Int32)).transpose()?;
        Ok(RecordIds {
            topic: match &self.topic {
                TopicOf::One(topic) => Ok(topic),
                TopicOf::Column(name) => Err(column(name, &DataType::Utf8)?.as_string::<i32>().clone()),
            },
            partitions: column(&self.partition, &DataType::Int32)?.as_primitive::<Int32Type>().clone(),
            offsets: column(&self.offset, &DataType::Int64)?.as_primitive::<Int64Type>().clone(),
            incarnations: incarnations.map(|column| column.as_primitive::<Int32Type>().clone()),
        })
    }
}

impl RecordIds<'_> {
    /// The record of a row: topic, partition, incarnation, offset; `None` where the row is of no record, as other
    /// engines may write.
    #[must_use]
    pub fn at(&self, row: usize) -> Option<(&str, i32, i32, i64)> {
        let topic = match &self.topic {
            Ok(topic) => topic,
            Err(topics) => topics.is_valid(row).then(|| topics.value(row))?,
        };
        let is_whole = self.partitions.is_valid(row) && self.offsets.is_valid(row);
        let given = self.incarnations.as_ref().filter(|column| column.is_valid(row));
        let incarnation = given.map_or(0, |column| column.value(row));
        is_whole.then(|| (topic, self.partitions.value(row), incarnation, self.offsets.value(row)))
    }
}

/// Offsets by partition and incarnation.
type Offsets = BTreeMap<(i32, i32), BTreeSet<i64>>;

/// A set of records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records {
    /// By topic.
    topics: BTreeMap<Arc<str>, Offsets>,
}

impl Records {
    /// Takes a record; false where it was there.
    pub fn insert(&mut self, id: &RecordId) -> bool {
        let partitions = self.topics.entry(Arc::clone(&id.source.topic)).or_default();
        partitions.entry((id.source.partition, id.incarnation)).or_default().insert(id.offset)
    }

    /// True where the record is there.
    #[must_use]
    pub fn contains(&self, topic: &str, partition: i32, incarnation: i32, offset: i64) -> bool {
        let offsets = self.topics.get(topic).and_then(|partitions| partitions.get(&(partition, incarnation)));
        offsets.is_some_and(|offsets| offsets.contains(&offset))
    }

    /// The same of an id.
    #[must_use]
    pub fn has(&self, id: &RecordId) -> bool {
        self.contains(&id.source.topic, id.source.partition, id.incarnation, id.offset)
    }

    /// True where there is a record in one of these partitions at one of these offsets, whatever its topic.
    #[must_use]
    pub fn meets(&self, partitions: &RangeInclusive<i32>, offsets: &RangeInclusive<i64>) -> bool {
        let all = self.topics.values().flatten().filter(|((partition, _), _)| partitions.contains(partition));
        !offsets.is_empty() && all.into_iter().any(|(_, held)| held.range(offsets.clone()).next().is_some())
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Per partition and incarnation the record with the greatest offset.
    pub fn last(&self) -> impl Iterator<Item = RecordId> {
        self.topics.iter().flat_map(|(topic, partitions)| {
            partitions.iter().filter_map(|((partition, incarnation), offsets)| {
                let source = TopicPartition { topic: Arc::clone(topic), partition: *partition };
                Some(RecordId { source, incarnation: *incarnation, offset: *offsets.last()? })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_as_it_is_written() {
        for (incarnation, text) in [(0, "shop.orders/3/42"), (2, "shop.orders@2/3/42")] {
            let id = RecordId { source: TopicPartition::new("shop.orders", 3), incarnation, offset: 42 };
            assert_eq!(id.to_string(), text);
            assert_eq!(text.parse::<RecordId>().unwrap(), id);
        }
        for wrong in ["", "orders", "orders/1", "/1/2", "orders/x/2", "orders/1/-2", "orders@x/1/2", "@1/1/2"] {
            assert!(wrong.parse::<RecordId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn rows_are_matched_with_a_set_of_records() {
        use arrow::array::StringArray;
        let rows = RecordBatch::try_from_iter([
            ("t", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None])) as ArrayRef),
            ("p", Arc::new(Int32Array::from(vec![Some(0), Some(1), Some(0)]))),
            ("o", Arc::new(Int64Array::from(vec![Some(5), None, Some(7)]))),
        ]);
        let (rows, name) = (rows.unwrap(), |name: &str| name.to_owned());
        let mut columns = RecordColumns {
            topic: TopicOf::Column(name("t")),
            partition: name("p"),
            offset: name("o"),
            incarnation: Some(name("i")),
        };
        let ids = columns.ids(&rows).unwrap();
        assert_eq!([0, 1, 2].map(|row| ids.at(row)), [Some(("a", 0, 0, 5)), None, None]);
        columns.topic = TopicOf::One("x".into());
        assert_eq!(columns.ids(&rows).unwrap().at(2), Some(("x", 0, 0, 7)));
        columns.offset = name("missing");
        assert!(columns.ids(&rows).unwrap_err().to_string().contains("`missing`"));

        let mut records = Records::default();
        for id in ["a/0/5", "a/0/9", "a@1/3/2"] {
            assert!(records.insert(&id.parse().unwrap()));
        }
        assert!(!records.insert(&"a/0/5".parse().unwrap()));
        assert!(records.contains("a", 3, 1, 2) && !records.contains("a", 3, 0, 2) && !records.contains("b", 0, 0, 5));
        assert!(records.meets(&(0..=0), &(6..=9)) && records.meets(&(1..=9), &(0..=2)));
        assert!(!records.meets(&(0..=0), &(6..=8)) && !records.meets(&(1..=2), &(0..=99)));
        let last: Vec<String> = records.last().map(|id| id.to_string()).collect();
        assert_eq!(last, ["a/0/9", "a@1/3/2"]);
    }
}
