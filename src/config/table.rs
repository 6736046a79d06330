//! One table's configuration as meant: its checks, its name, and its mapping, which is stored with the table. What is
//! true between tables is checked in `resolve`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::choices::{
    EvolutionWord, ExistingWord, JsonFormatsWord, KeyColumns, KeyFormatWord, MetadataColumn, MetadataNames,
    Nullability, OnError, OnGap, OnTombstone, OnTopicChange, OneofWord, TimeAs, ValueFormatWord,
};
use super::columns::{resolve_columns, resolve_filter, stored};
use super::fields::{Compression, FormatVersion, Partitioning, Start};
use super::index::{TableIndexConfig, resolve_table_index};
use super::origin::{Origin, RouteBy, RouteConfig, check_topic, origin};
use super::resolve::{invalid, positive};
use super::settings::{Defaults, KeySettings, TableSettings, ValueSettings};
use super::units::{Number, Size, Span};
use crate::error::Result;
use crate::model::ids::TableName;
use crate::model::mapping::PREFIX;
use crate::model::projection::Projection;
use crate::ports::{PartitionField, SchemaFormat};

/// Table properties with this beginning belong to Frazil.
pub const RESERVED_PREFIX: &str = "frazil.";
/// Changes when the same options come to mean other columns.
const MAPPING_VERSION: &str = "1";

/// One table and how it is filled.
#[derive(Debug, Clone, PartialEq)]
pub struct TableConfig {
    /// The topics that fill it; at least one.
    pub topics: Vec<String>,
    /// The pattern that its topics were found by, and further ones are; `None`: they are named.
    pub topic_pattern: Option<String>,
    /// Its name.
    pub table: TableName,
    /// The tables that records of its topics go to instead, each to that of its value; it takes those without any.
    pub route: Option<RouteConfig>,
    /// The value of a route whose records it takes; `None`: it is none of a route's tables.
    pub route_value: Option<String>,
    /// How keys are read.
    pub key: KeyConfig,
    /// How values are read.
    pub value: SideConfig,
    /// Where reading begins.
    pub start: Start,
    /// Which of a record's fields have columns.
    pub columns: Projection,
    /// The condition that rows meet; `None`: none.
    pub filter: Option<String>,
    /// Columns about the record itself.
    pub metadata: MetadataConfig,
    /// What becomes of a table of its name that another tool made.
    pub existing: ExistingWord,
    /// Partition fields, outermost first.
    pub partition_by: Vec<PartitionField>,
    /// Columns that rows are sorted by inside a file.
    pub sort_by: Vec<String>,
    /// Iceberg format version.
    pub format_version: u8,
    /// A commit is made after this time at the latest.
    pub commit_interval: Duration,
    /// A commit is made at this number of bytes received.
    pub commit_bytes: u64,
    /// A commit is made at this number of rows; `None`: no such bound.
    pub commit_rows: Option<u64>,
    /// What a Protobuf `oneof` becomes.
    pub oneof: OneofWord,
    /// What text of a JSON Schema `format` becomes.
    pub json_formats: JsonFormatsWord,
    /// What becomes of a schema that the table's columns do not fit as they are.
    pub evolution: EvolutionWord,
    /// What becomes of a record that cannot be a row.
    pub on_error: OnError,
    /// A topic that takes the dead letters, too.
    pub dead_letter_topic: Option<String>,
    /// What becomes of a record with a key and no value.
    pub on_tombstone: OnTombstone,
    /// What happens where offsets are gone before they were read.
    pub on_gap: OnGap,
    /// What happens where a topic was made anew.
    pub on_topic_change: OnTopicChange,
    /// How a time of day is stored.
    pub time_as: TimeAs,
    /// Whether required fields become required columns.
    pub nullability: Nullability,
    /// Compression of data files.
    pub compression: Compression,
    /// Larger records are errors.
    pub max_record_bytes: u64,
    /// The user's table properties.
    pub properties: BTreeMap<String, String>,
    /// Where the table lies; `None`: below the warehouse.
    pub location: Option<String>,
    /// What of it can be searched; `None`: nothing.
    pub index: Option<TableIndexConfig>,
}

/// How keys are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// Their format.
    pub side: SideConfig,
    /// The columns made of them.
    pub columns: KeyColumns,
}

/// How one side of records is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SideConfig {
    /// The format.
    pub format: SideFormat,
    /// The registry's subject; `None`: the topic's.
    pub subject: Option<String>,
}

/// The format of keys or values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SideFormat {
    /// By what the bytes and the registry say.
    Auto,
    /// Framed with a schema id of the registry.
    Registry,
    /// Without framing, by this schema.
    Given {
        /// Its language.
        language: SchemaFormat,
        /// Its text.
        schema: String,
    },
    /// JSON without a schema.
    Json,
    /// UTF-8 text.
    String,
    /// Bytes as they are.
    Bytes,
    /// Not read.
    None,
}

impl SideFormat {
    /// As the table's properties keep it. Not the schema: what another text changes is decided by the columns.
    fn stored(&self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Registry => "registry",
            Self::Given { language: SchemaFormat::Avro, .. } => "avro",
            Self::Given { language: SchemaFormat::Protobuf, .. } => "protobuf",
            Self::Given { language: SchemaFormat::Json, .. } => "json_schema",
            Self::Json => "json",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::None => "none",
        }
    }
}

/// Columns about the record itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataConfig {
    /// Their naming scheme.
    pub names: MetadataNames,
    /// The columns to have; `None`: those of the naming scheme.
    pub include: Option<Vec<MetadataColumn>>,
}

impl TableConfig {
    /// The options that decide what columns are made, as the table properties that keep them.
    #[must_use]
    pub fn mapping(&self) -> BTreeMap<String, String> {
        let route = self.route.as_ref().map(|route| ("route", route.template.clone()));
        let route_value = self.route_value.as_ref().map(|value| ("route_value", value.clone()));
        let topics = self.topic_pattern.clone().unwrap_or_else(|| joined(&self.topics));
        let include = self.metadata.include.as_ref().map_or_else(|| "default".to_owned(), |columns| joined(columns));
        let partition_by: Vec<Partitioning> = self.partition_by.iter().cloned().map(Partitioning).collect();
        [
            ("version", MAPPING_VERSION.to_owned()),
            ("topics", topics),
            ("key.format", self.key.side.format.stored().to_owned()),
            ("key.columns", self.key.columns.to_string()),
            ("columns.rename", stored(&self.columns)),
            ("value.format", self.value.format.stored().to_owned()),
            ("metadata_columns.names", self.metadata.names.to_string()),
            ("metadata_columns.include", include),
            ("time_as", self.time_as.to_string()),
            ("nullability", self.nullability.to_string()),
            ("oneof", self.oneof.to_string()),
            ("json_formats", self.json_formats.to_string()),
            ("partition_by", joined(&partition_by)),
            ("sort_by", joined(&self.sort_by)),
        ]
        .into_iter()
        .chain(route)
        .chain(route_value)
        .map(|(name, value)| (format!("{PREFIX}{name}"), value))
        .collect()
    }

    /// Whether it has rows of several topics, or may get some.
    #[must_use]
    pub fn has_several_topics(&self) -> bool {
        self.topics.len() > 1 || self.topic_pattern.is_some()
    }
}

/// `tables[position]` as meant.
///
/// # Errors
/// `InvalidConfig`.
pub(super) fn resolve_table(position: usize, own: &TableSettings, defaults: &Defaults) -> Result<TableConfig> {
    let written = own.with_defaults(defaults);
    let key_of =
        |name: &str| if own.writes(name) { format!("tables[{position}].{name}") } else { format!("defaults.{name}") };
    let Origin { topics, topic_pattern, table, route } = origin(position, &written, defaults)?;
    let value = resolve_value(&key_of("value"), written.value.clone().unwrap_or_default())?;
    let key = written.key.clone().unwrap_or_default();
    let names = written.metadata_columns.clone().unwrap_or_default();
    let metadata = MetadataConfig { names: names.names.unwrap_or(MetadataNames::Kafka), include: names.include };
    let has_several = topics.len() > 1 || topic_pattern.is_some();
    check_metadata(&format!("{}.include", key_of("metadata_columns")), &metadata, has_several)?;
    let time_as = match metadata.names {
        MetadataNames::Kafka => TimeAs::Long,
        MetadataNames::Tableflow | MetadataNames::TableflowPortable => TimeAs::Time,
    };
    let partition_by: Vec<PartitionField> =
        written.partition_by.unwrap_or_default().into_iter().map(|field| field.0).collect();
    refuse_repeats(&key_of("partition_by"), &partition_by)?;
    let sort_by = written.sort_by.unwrap_or_default();
    refuse_repeats(&key_of("sort_by"), &sort_by)?;
    let properties = written.properties.unwrap_or_default();
    refuse_reserved(&key_of("properties"), &properties)?;
    Ok(TableConfig {
        key: resolve_key(&key_of("key"), key)?,
        value: routed_value(&key_of("value.format"), route.as_ref(), value)?,
        columns: resolve_columns(&key_of("columns"), written.columns.unwrap_or_default())?,
        filter: resolve_filter(&key_of("where"), written.r#where)?,
        start: written.start.unwrap_or(Start::Earliest),
        existing: written.existing.unwrap_or(ExistingWord::Refuse),
        format_version: written.format_version.unwrap_or(FormatVersion(2)).0,
        commit_interval: positive(
            &key_of("commit_interval"),
            written.commit_interval.map(|Span(span)| span),
            Duration::from_secs(10),
        )?,
        commit_bytes: positive(&key_of("commit_bytes"), written.commit_bytes.map(|Size(bytes)| bytes), 512 << 20)?,
        commit_rows: match written.commit_rows {
            Some(Number(rows)) => Some(positive(&key_of("commit_rows"), Some(rows), rows)?),
            None => None,
        },
        oneof: written.oneof.unwrap_or(OneofWord::Struct),
        json_formats: written.json_formats.unwrap_or(JsonFormatsWord::String),
        evolution: written.evolution.unwrap_or(EvolutionWord::Extend),
        on_error: written.on_error.unwrap_or(OnError::DeadLetter),
        dead_letter_topic: letters_to(&key_of, written.dead_letter_topic, written.on_error, &topics)?,
        on_tombstone: written.on_tombstone.unwrap_or(OnTombstone::Keep),
        on_gap: written.on_gap.unwrap_or(OnGap::Fail),
        on_topic_change: written.on_topic_change.unwrap_or(OnTopicChange::Fail),
        time_as: written.time_as.unwrap_or(time_as),
        nullability: written.nullability.unwrap_or(Nullability::Optional),
        compression: written.compression.unwrap_or(Compression::Zstd(1)),
        max_record_bytes: positive(
            &key_of("max_record_bytes"),
            written.max_record_bytes.map(|Size(bytes)| bytes),
            16 << 20,
        )?,
        location: written.location,
        index: written
            .index
            .map(|index| resolve_table_index(&format!("tables[{position}].index"), &index))
            .transpose()?,
        topics,
        topic_pattern,
        table,
        route,
        route_value: None,
        metadata,
        partition_by,
        sort_by,
        properties,
    })
}

fn resolve_key(at: &str, written: KeySettings) -> Result<KeyConfig> {
    let word = written.format.unwrap_or(KeyFormatWord::Auto);
    let asked = match word {
        KeyFormatWord::Auto => Asked::Plain(SideFormat::Auto),
        KeyFormatWord::Registry => Asked::Plain(SideFormat::Registry),
        KeyFormatWord::Avro => Asked::By(SchemaFormat::Avro),
        KeyFormatWord::Protobuf => Asked::By(SchemaFormat::Protobuf),
        KeyFormatWord::Json => Asked::By(SchemaFormat::Json),
        KeyFormatWord::String => Asked::Plain(SideFormat::String),
        KeyFormatWord::Bytes => Asked::Plain(SideFormat::Bytes),
        KeyFormatWord::None => Asked::Plain(SideFormat::None),
    };
    let side = resolve_side(at, word.as_str(), asked, [written.schema, written.schema_file], written.subject)?;
    Ok(KeyConfig { side, columns: written.columns.unwrap_or(KeyColumns::Flatten) })
}

fn resolve_value(at: &str, written: ValueSettings) -> Result<SideConfig> {
    let word = written.format.unwrap_or(ValueFormatWord::Auto);
    let schema = [written.schema, written.schema_file];
    let asked = match word {
        ValueFormatWord::Auto => Asked::Plain(SideFormat::Auto),
        ValueFormatWord::Registry => Asked::Plain(SideFormat::Registry),
        ValueFormatWord::Avro => Asked::By(SchemaFormat::Avro),
        ValueFormatWord::Protobuf => Asked::By(SchemaFormat::Protobuf),
        ValueFormatWord::Json if schema == [None, None] => Asked::Plain(SideFormat::Json),
        ValueFormatWord::Json => Asked::By(SchemaFormat::Json),
        ValueFormatWord::String => Asked::Plain(SideFormat::String),
        ValueFormatWord::Bytes => Asked::Plain(SideFormat::Bytes),
    };
    resolve_side(at, word.as_str(), asked, schema, written.subject)
}

/// A topic for dead letters has letters to take, and none that come back to the table.
fn letters_to(
    key_of: &dyn Fn(&str) -> String,
    topic: Option<String>,
    on_error: Option<OnError>,
    own: &[String],
) -> Result<Option<String>> {
    let Some(topic) = topic else { return Ok(None) };
    let at = key_of("dead_letter_topic");
    check_topic(&at, &topic)?;
    if on_error.is_some_and(|on_error| on_error != OnError::DeadLetter) {
        return Err(invalid(&at, "without `on_error: dead_letter` there are no dead letters; remove it"));
    }
    if own.contains(&topic) {
        return Err(invalid(&at, &format!("the table reads `{topic}` itself; name another topic")));
    }
    Ok(Some(topic))
}

/// Who names records by their types finds these in the registry.
fn routed_value(at: &str, route: Option<&RouteConfig>, value: SideConfig) -> Result<SideConfig> {
    match (route.map(|route| &route.by), &value.format) {
        (Some(RouteBy::RecordName | RouteBy::Field(_)), SideFormat::Auto) => {
            Ok(SideConfig { format: SideFormat::Registry, ..value })
        }
        (Some(RouteBy::Field(_)), SideFormat::String | SideFormat::Bytes) => Err(invalid(
            at,
            "`{field:…}` needs records with fields; write `auto`, `json` or another format that has them",
        )),
        (Some(RouteBy::RecordName), SideFormat::Registry)
        | (Some(RouteBy::Header(_) | RouteBy::Field(_)) | None, _) => Ok(value),
        (Some(RouteBy::RecordName), _) => {
            Err(invalid(at, "`{record_name}` is found in the schema registry; write format `auto` or `registry`"))
        }
    }
}

/// What a format's word asks for.
enum Asked {
    /// Nothing more.
    Plain(SideFormat),
    /// A schema in this language.
    By(SchemaFormat),
}

/// Settings that the format has no use for are slips.
fn resolve_side(
    at: &str,
    word: &str,
    asked: Asked,
    [schema, file]: [Option<String>; 2],
    subject: Option<String>,
) -> Result<SideConfig> {
    let refuse = |name: &str, text: &str| Err(invalid(&format!("{at}.{name}"), text));
    let format = match (asked, schema, file) {
        (Asked::Plain(format), None, None) => format,
        (Asked::Plain(_), schema, _) => {
            let name = if schema.is_some() { "schema" } else { "schema_file" };
            let others = "write format `avro`, `protobuf` or `json`";
            return refuse(name, &format!("format `{word}` takes none; remove it, or {others}"));
        }
        (Asked::By(language), Some(schema), None) => given(&format!("{at}.schema"), language, schema)?,
        (Asked::By(language), None, Some(file)) => {
            let at = format!("{at}.schema_file");
            let schema = std::fs::read_to_string(&file).map_err(|error| {
                let text = format!("file `{file}` cannot be read; mend the path or its permissions");
                invalid(&at, &text).with_source(error)
            })?;
            given(&at, language, schema)?
        }
        (Asked::By(_), None, None) => {
            let text = format!("format `{word}` needs it; write the schema here, or its file under `schema_file`");
            return refuse("schema", &text);
        }
        (Asked::By(_), Some(_), Some(_)) => {
            return refuse("schema_file", "`schema` is written too; keep one of them");
        }
    };
    if subject.is_some() && !matches!(format, SideFormat::Auto | SideFormat::Registry) {
        return refuse("subject", &format!("format `{word}` asks no registry; remove it, or write format `registry`"));
    }
    Ok(SideConfig { format, subject })
}

fn given(at: &str, language: SchemaFormat, schema: String) -> Result<SideFormat> {
    if language != SchemaFormat::Protobuf {
        let parsed = serde_json::from_str::<serde_json::Value>(&schema);
        parsed.map_err(|error| invalid(at, "it is no JSON; write the schema's text").with_source(error))?;
    }
    Ok(SideFormat::Given { language, schema })
}

fn refuse_reserved(at: &str, properties: &BTreeMap<String, String>) -> Result<()> {
    let reserved = properties.keys().find(|name| name.starts_with(RESERVED_PREFIX));
    reserved.map_or(Ok(()), |name| {
        let text = format!("properties that begin with `{RESERVED_PREFIX}` are frazil's own; remove it");
        Err(invalid(&format!("{at}.{name}"), &text))
    })
}

/// A row is identified by topic, partition and offset.
fn check_metadata(at: &str, metadata: &MetadataConfig, has_several_topics: bool) -> Result<()> {
    let Some(include) = &metadata.include else { return Ok(()) };
    refuse_repeats(at, include)?;
    let topic = has_several_topics.then_some(MetadataColumn::Topic);
    for column in [MetadataColumn::Partition, MetadataColumn::Offset].into_iter().chain(topic) {
        if !include.contains(&column) {
            return Err(invalid(at, &format!("`{column}` is part of a row's identity and cannot be left out; add it")));
        }
    }
    Ok(())
}

pub(super) fn refuse_repeats<T: PartialEq>(at: &str, items: &[T]) -> Result<()> {
    match (1..items.len()).find(|&index| items[..index].contains(&items[index])) {
        Some(index) => Err(invalid(&format!("{at}[{index}]"), "it is written twice; remove one")),
        None => Ok(()),
    }
}

fn joined<T: ToString>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join(", ")
}
