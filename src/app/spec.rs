//! From a table's configuration to what its driver, its decoding and its index take.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::rows;
use crate::config::choices as words;
use crate::config::fields::{Compression, Start};
use crate::config::origin::RouteBy;
use crate::config::resolve::Config;
use crate::config::table::{SideConfig, SideFormat, TableConfig};
use crate::decode::evolution::Evolution;
use crate::decode::layout::{Format, Given, GivenSchema, KeyColumns, Layout, Metadata, MetadataNames, Tombstones};
use crate::decode::mapping::{Added, JsonFormats, MappingOptions, OneofAs, TableFormat, TimeAs};
use crate::decode::schema::Schema;
use crate::error::{Error, Result};
use crate::model::record::{RecordColumns, TopicOf};
use crate::pipeline::driver::{Subjects, TableSpec};
use crate::pipeline::event::{OnError, OnGap, OnTopicChange, Settings, StartAt};
use crate::ports::{PartitionField, RegisteredSchema, Transform};
use crate::vector::IndexSpec;
/// How often a table that cannot go on looks again.
const RETRY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(2);
/// How often a table looks whether its topics are still the ones that they were.
const IDENTITY_INTERVAL: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a revoke waits for commits before the table's uncommitted work is dropped; below the 30 s that the
/// source waits.
const REVOKE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);
/// How long a table that shares its topics, and gets no record of them, waits before it commits how far they are read.
const IDLE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(300);

/// One table's specification.
///
/// # Errors
/// `InvalidConfig` where it asks for what cannot be done yet.
pub fn table_spec(config: &Config, table: &TableConfig) -> Result<TableSpec> {
    let settings = Settings {
        table: table.table.clone(),
        topics: table.topics.clone(),
        start: match &table.start {
            Start::Earliest => StartAt::Earliest,
            Start::Latest => StartAt::Latest,
            Start::Timestamp(ms) => StartAt::Timestamp(*ms),
            Start::Offsets(offsets) => StartAt::Offsets(offsets.clone()),
        },
        on_gap: match table.on_gap {
            words::OnGap::Fail => OnGap::Fail,
            words::OnGap::Continue => OnGap::Continue,
        },
        on_topic_change: match table.on_topic_change {
            words::OnTopicChange::Fail => OnTopicChange::Fail,
            words::OnTopicChange::NewIncarnation => OnTopicChange::NewIncarnation,
        },
        on_error: match table.on_error {
            words::OnError::DeadLetter => OnError::DeadLetter,
            words::OnError::Suspend => OnError::Suspend,
            words::OnError::Skip => OnError::Skip,
        },
        commit_interval: table.commit_interval,
        idle_interval: if shares_topics(table, &config.tables) {
            IDLE_INTERVAL.max(table.commit_interval)
        } else {
            table.commit_interval
        },
        commit_bytes: table.commit_bytes,
        commit_rows: table.commit_rows.unwrap_or(u64::MAX),
        revoke_timeout: REVOKE_TIMEOUT,
        retry_interval: RETRY_INTERVAL,
        identity_interval: IDENTITY_INTERVAL,
        commit_at_ends: false,
    };
    let layout = layout(table)?;
    let names: Vec<String> = layout.metadata.iter().map(|column| column.name(layout.names)).collect();
    // What has no type has no columns but those about the record.
    let untyped =
        table.route.as_ref().is_some_and(|route| route.by == RouteBy::RecordName) && table.route_value.is_none();
    let has = |column: &String| !untyped || names.contains(column);
    if layout.value_format == Format::Registry && config.schema_registry.is_none() {
        return Err(Error::invalid_config(format!(
            "`value.format` of table `{}` is `registry`, and there is no `schema_registry`; add its `url`",
            table.table
        )));
    }
    Ok(TableSpec {
        settings,
        layout,
        filter: rows::filter(table)?,
        adopts: table.existing == words::ExistingWord::Adopt,
        partition_by: table.partition_by.iter().filter(|field| has(&field.column)).cloned().collect(),
        sort_by: table.sort_by.iter().filter(|column| has(column)).cloned().collect(),
        format_version: table.format_version,
        properties: properties(table),
        location: table.location.clone(),
        dead_letter_topic: table.dead_letter_topic.clone(),
        subjects: subjects(table),
    })
}

/// Whether other tables are filled from the same topics.
fn shares_topics(table: &TableConfig, all: &[TableConfig]) -> bool {
    let overlaps = |other: &&TableConfig| other.topics.iter().any(|topic| table.topics.contains(topic));
    table.route.is_some() || all.iter().filter(overlaps).count() > 1
}

/// The registry's subjects of keys and values.
#[must_use]
pub fn subjects(table: &TableConfig) -> Subjects {
    let of =
        |side: &SideConfig, name: &str| side.subject.clone().unwrap_or_else(|| format!("{}-{name}", table.topics[0]));
    let mut subjects = Subjects { key: of(&table.key.side, "key"), value: of(&table.value, "value") };
    // A subject of the topic is of one type of its records only, if of any.
    if table.route.as_ref().is_some_and(|route| route.by == RouteBy::RecordName) && table.value.subject.is_none() {
        subjects.value.clear();
    }
    subjects
}

/// What of a table is indexed; `None`: nothing.
#[must_use]
pub(super) fn index_spec(table: &TableConfig) -> Option<IndexSpec> {
    let index = table.index.as_ref()?;
    let names = metadata_names(table);
    let columns = metadata(table, names);
    let name = |column: Metadata| columns.contains(&column).then(|| column.name(names));
    let topic = match table.topics.as_slice() {
        [topic] if !table.has_several_topics() => TopicOf::One(topic.as_str().into()),
        _ => TopicOf::Column(Metadata::Topic.name(names)),
    };
    Some(IndexSpec {
        table: table.table.clone(),
        topics: table.topics.iter().map(|topic| topic.as_str().into()).collect(),
        columns: RecordColumns {
            topic,
            partition: Metadata::Partition.name(names),
            offset: Metadata::Offset.name(names),
            incarnation: name(Metadata::Incarnation),
        },
        time: name(Metadata::Timestamp),
        text: index.text.clone(),
        filters: index.filters.clone(),
    })
}

/// The column that says which topic a row is of, whether the table has it or not.
pub(super) fn topic_column(table: &TableConfig) -> String {
    Metadata::Topic.name(metadata_names(table))
}

fn metadata_names(table: &TableConfig) -> MetadataNames {
    match table.metadata.names {
        words::MetadataNames::Kafka => MetadataNames::Kafka,
        words::MetadataNames::Tableflow => MetadataNames::Tableflow,
        words::MetadataNames::TableflowPortable => MetadataNames::TableflowPortable,
    }
}

fn properties(table: &TableConfig) -> BTreeMap<String, String> {
    let (codec, level) = match table.compression {
        Compression::Zstd(level) => ("zstd", Some(level)),
        Compression::Lz4 => ("lz4", None),
        Compression::Snappy => ("snappy", None),
        Compression::None => ("uncompressed", None),
    };
    let mut properties = table.mapping();
    properties.insert("write.parquet.compression-codec".to_owned(), codec.to_owned());
    if let Some(level) = level {
        properties.insert("write.parquet.compression-level".to_owned(), level.to_string());
    }
    properties.extend(table.properties.clone());
    properties
}

fn layout(table: &TableConfig) -> Result<Layout> {
    let names = metadata_names(table);
    let (key_format, value_format) = (format(&table.key.side.format), format(&table.value.format));
    Ok(Layout {
        key_format,
        key_columns: match table.key.columns {
            _ if key_format == Format::None => KeyColumns::None,
            words::KeyColumns::Flatten => KeyColumns::Flatten,
            words::KeyColumns::Struct => KeyColumns::Struct,
            words::KeyColumns::Raw => KeyColumns::Raw,
            words::KeyColumns::None => KeyColumns::None,
        },
        value_format,
        projection: rows::projection(table, names)?,
        names,
        metadata: metadata(table, names),
        mapping: MappingOptions {
            by_name: false,
            time_as: match table.time_as {
                words::TimeAs::Long => TimeAs::Long,
                words::TimeAs::Time => TimeAs::Time,
                words::TimeAs::String => TimeAs::String,
            },
            uuid_as_string: names != MetadataNames::Kafka,
            keep_required: table.nullability == words::Nullability::AsWritten,
            added: Added::AsWritten,
            format: TableFormat::of(table.format_version),
            uint64_as_long: names != MetadataNames::Kafka,
            oneof: match table.oneof {
                words::OneofWord::Struct => OneofAs::Struct,
                words::OneofWord::Flat => OneofAs::Flat,
            },
            json_formats: match table.json_formats {
                words::JsonFormatsWord::String => JsonFormats::Text,
                words::JsonFormatsWord::Typed => JsonFormats::Typed,
            },
        },
        tombstones: match table.on_tombstone {
            words::OnTombstone::Keep => Tombstones::Keep,
            words::OnTombstone::DeadLetter => Tombstones::DeadLetter,
        },
        record_bytes_max: usize::try_from(table.max_record_bytes).unwrap_or(usize::MAX),
        evolution: match table.evolution {
            words::EvolutionWord::Extend => Evolution::Extend,
            words::EvolutionWord::Full => Evolution::Full,
            words::EvolutionWord::Strict => Evolution::Strict,
            words::EvolutionWord::Branch => Evolution::Branch,
        },
        partitioned: partitioned(table),
        pinned: pinned(table),
        given: Given {
            key: given(&table.key.side.format, table, "key")?,
            value: given(&table.value.format, table, "value")?,
        },
    })
}

/// Columns whose own values partition the table.
fn partitioned(table: &TableConfig) -> Vec<String> {
    let by_value = |field: &&PartitionField| matches!(field.transform, Transform::Identity | Transform::Truncate(_));
    table.partition_by.iter().filter(by_value).map(|field| field.column.clone()).collect()
}

/// Columns that settings name; of a condition every word, whatever else it means there.
fn pinned(table: &TableConfig) -> Vec<String> {
    let mut pinned: Vec<String> = table.partition_by.iter().map(|field| field.column.clone()).collect();
    pinned.extend(table.sort_by.clone());
    if let Some(index) = &table.index {
        pinned.extend(index.filters.clone());
        pinned.extend(index.text.paths().map(|path| path.join(".")));
    }
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    let words =
        |text: &'_ str| text.split('"').chain(text.split(|c| !of_word(c))).map(str::to_owned).collect::<Vec<_>>();
    pinned.extend(table.filter.iter().flat_map(|text| words(text)).filter(|word| !word.is_empty()));
    pinned
}

fn format(side: &SideFormat) -> Format {
    match side {
        SideFormat::Auto => Format::Auto,
        SideFormat::Registry => Format::Registry,
        SideFormat::Given { .. } => Format::Given,
        SideFormat::Json => Format::Json,
        SideFormat::String => Format::String,
        SideFormat::Bytes => Format::Bytes,
        SideFormat::None => Format::None,
    }
}

/// The schema that the configuration gives for a side.
fn given(side: &SideFormat, table: &TableConfig, name: &str) -> Result<Option<GivenSchema>> {
    let SideFormat::Given { language, schema } = side else { return Ok(None) };
    let registered = RegisteredSchema { id: 0, format: *language, text: schema.clone(), references: Vec::new() };
    let parsed = Schema::parse(&registered).map_err(|error| {
        let text = format!("`{name}.schema` of table `{}` cannot be read; mend it", table.table);
        Error::invalid_config(text).with_source(error)
    })?;
    Ok(Some(GivenSchema { written: (*language, schema.clone()), schema: Arc::new(parsed) }))
}

/// The metadata columns in table order. Partition and offset are a row's identity; so is the topic where there are
/// several, and the incarnation where a topic may be made anew.
fn metadata(table: &TableConfig, names: MetadataNames) -> Vec<Metadata> {
    let by_default = match names {
        MetadataNames::Kafka => vec![Metadata::Partition, Metadata::Headers, Metadata::Offset, Metadata::Timestamp],
        _ => Metadata::ALL.into_iter().filter(|column| *column != Metadata::Incarnation).collect(),
    };
    let mut columns = table.metadata.include.as_ref().map_or(by_default, |include| include.iter().map(one).collect());
    columns.extend([Metadata::Partition, Metadata::Offset]);
    if table.has_several_topics() {
        columns.push(Metadata::Topic);
    }
    if table.on_topic_change == words::OnTopicChange::NewIncarnation {
        columns.push(Metadata::Incarnation);
    }
    columns.sort();
    columns.dedup();
    columns
}

fn one(column: &words::MetadataColumn) -> Metadata {
    match column {
        words::MetadataColumn::Topic => Metadata::Topic,
        words::MetadataColumn::Partition => Metadata::Partition,
        words::MetadataColumn::Headers => Metadata::Headers,
        words::MetadataColumn::LeaderEpoch => Metadata::LeaderEpoch,
        words::MetadataColumn::Offset => Metadata::Offset,
        words::MetadataColumn::Timestamp => Metadata::Timestamp,
        words::MetadataColumn::TimestampType => Metadata::TimestampType,
        words::MetadataColumn::RawKey => Metadata::RawKey,
        words::MetadataColumn::RawValue => Metadata::RawValue,
    }
}
