//! The configuration as written: every setting, optional as in the file, with the doc comment that becomes its
//! description in the JSON Schema. Nothing is checked here beyond each setting's own syntax; see `resolve`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::choices::{
    CatalogType, EvolutionWord, ExistingWord, IndexModel, JsonFormatsWord, KeyColumns, KeyFormatWord, LogFormat,
    MetadataColumn, MetadataNames, Nullability, OnError, OnGap, OnTombstone, OnTopicChange, OneofWord, Scope, TimeAs,
    ValueFormatWord,
};
use super::fields::{Compression, FormatVersion, Partitioning, Start, TokenHash};
use super::secret::Secret;
use super::units::{Number, Size, Span};

/// A group of settings: all optional, unknown ones refused.
macro_rules! sections {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
            #[serde(default, deny_unknown_fields, expecting = "settings, as in `name: value`")]
            pub struct $name {
                $($(#[$field_doc])* pub $field: Option<$kind>,)*
            }
        )*
    };
}

/// The settings that a table and `defaults` share, once for both.
macro_rules! table_options {
    (
        $(#[$defaults_doc:meta])* $defaults:ident { $($(#[$d_doc:meta])* $d:ident: $d_kind:ty,)* }
        $(#[$table_doc:meta])* $table:ident { $($(#[$t_doc:meta])* $t:ident: $t_kind:ty,)* }
        both { $($(#[$doc:meta])* $field:ident: $kind:ty,)* }
    ) => {
        sections! {
            $(#[$defaults_doc])* $defaults { $($(#[$d_doc])* $d: $d_kind,)* $($(#[$doc])* $field: $kind,)* }
            $(#[$table_doc])* $table { $($(#[$t_doc])* $t: $t_kind,)* $($(#[$doc])* $field: $kind,)* }
        }

        impl $table {
            /// These settings, and where one is not written that of `defaults`.
            #[must_use]
            pub fn with_defaults(&self, defaults: &$defaults) -> Self {
                let mut merged = self.clone();
                $(merged.$field = merged.$field.or_else(|| defaults.$field.clone());)*
                merged
            }

            /// True where the setting `name` is written here, or can be written nowhere else.
            #[must_use]
            pub fn writes(&self, name: &str) -> bool {
                match name {
                    $(stringify!($field) => self.$field.is_some(),)*
                    _ => true,
                }
            }
        }
    };
}

sections! {
    /// Frazil's configuration.
    Settings {
        /// The Kafka cluster that is read.
        kafka: KafkaSettings,
        /// The schema registry; may be left out where no table needs one.
        schema_registry: RegistrySettings,
        /// The catalog that holds the tables.
        catalog: CatalogSettings,
        /// Options of the warehouse's object store, by the names of the object_store crate: aws_region, aws_endpoint …
        /// Without them each cloud's standard credential chain applies.
        storage: BTreeMap<String, Option<Secret>>,
        /// Settings for every table; a table's own setting replaces the default as a whole.
        defaults: Defaults,
        /// The tables to fill.
        tables: Vec<TableSettings>,
        /// How tables are kept healthy.
        maintenance: MaintenanceSettings,
        /// Search indexes.
        index: IndexSettings,
        /// The HTTP listener.
        server: ServerSettings,
        /// What a SQL query may use.
        sql: SqlSettings,
        /// The MCP server, for AI agents.
        mcp: McpSettings,
        /// Bound of the memory in queues, writers and caches. Default 512MiB, at least 32MiB.
        memory_budget: Size,
        /// Logs, which go to standard error.
        log: LogSettings,
        /// How long a stop may take before it names who is late and exits. Default 30s.
        shutdown_timeout: Span,
        /// Threads that decode and encode. Default: one per core.
        compute_threads: Number<u32>,
    }

    /// The Kafka cluster.
    KafkaSettings {
        /// Brokers to begin with, as host:port, separated by commas. Required.
        bootstrap_servers: String,
        /// Consumer group; replicas that share it share the partitions. Default frazil.
        group_id: String,
        /// librdkafka properties: security.protocol, sasl.*, ssl.* … Those that Frazil sets itself are refused.
        properties: BTreeMap<String, Option<Secret>>,
    }

    /// The schema registry.
    RegistrySettings {
        /// Its address, or several separated by commas, tried in turn. Required.
        url: String,
        /// User of basic authentication.
        username: String,
        /// Password of basic authentication.
        password: Secret,
        /// Bearer token, instead of user and password.
        bearer_token: Secret,
        /// TLS: own certificate authority, client certificate.
        tls: ClientTlsSettings,
    }

    /// TLS towards a server.
    ClientTlsSettings {
        /// PEM file of the authorities to trust, instead of the system's.
        ca: String,
        /// PEM file of the client's certificate chain.
        cert: String,
        /// PEM file of the client's key.
        key: String,
    }

    /// The catalog.
    CatalogSettings {
        /// Its kind. Default sql: embedded, in SQLite or Postgres.
        r#type: CatalogType,
        /// Its database: sqlite://path or postgres://user:password@host/database. Required.
        uri: Secret,
        /// Where tables lie: a path (relative to the current directory), or a URL (s3://, gs://, az://, file:///). Required.
        warehouse: String,
        /// The catalog's name inside the database. Default frazil.
        name: String,
    }

    /// How tables are kept healthy.
    MaintenanceSettings {
        /// The size that data files should have. Default 512MiB.
        target_file_size: Size,
        /// Small files of a partition that are merged at least. Default 5.
        min_files: Number<u32>,
        /// How often each table is looked at while nothing is due. Default 10s.
        interval: Span,
        /// Memory that one compaction may take; files of sorted tables get half as large at most. Default 256MiB.
        memory: Size,
        /// Snapshots beyond this number expire, once older than keep_min_age. Default 100.
        keep_snapshots: Number<u32>,
        /// The newest snapshots that never expire. Default 10.
        keep_min: Number<u32>,
        /// No snapshot expires before this age. Default 1h.
        keep_min_age: Span,
        /// Every snapshot expires at this age, but for the newest keep_min. Default 7d.
        keep_for: Span,
        /// Files that nothing refers to are deleted at this age. Default 3d.
        orphan_grace: Span,
    }

    /// Search indexes, of the tables that have `index`.
    IndexSettings {
        /// The folder that they lie in, as LanceDB tables. Default frazil/index.
        uri: String,
        /// The model that turns text into vectors. Default static: built in.
        model: IndexModel,
    }

    /// What of a table can be searched.
    TableIndexSettings {
        /// The text that is found, made of columns, as in {title}\n{body}. Required.
        text: String,
        /// Columns that a search may filter by. Default none.
        filters: Vec<String>,
    }

    /// What one SQL query may use, whoever asks; its memory is a share of memory_budget.
    SqlSettings {
        /// How long it may take. Default 60s.
        timeout: Span,
        /// Rows that it may give. Default 1000000.
        max_rows: Number<u64>,
        /// Bytes of data files that it may read. Default 1TiB.
        max_scan: Size,
        /// Queries at once; others wait for their turn. Default 8.
        queries_at_once: Number<u32>,
    }

    /// The MCP server, at /mcp of the listener and on stdio by `frazil mcp`.
    McpSettings {
        /// Host names that requests may carry, beside those of loopback and the listener's own address. Default none.
        allowed_hosts: Vec<String>,
        /// Origins of browsers that may call, as in https://app.example.com:443, beside those of loopback. Default none.
        allowed_origins: Vec<String>,
        /// Where every call and refusal is written down. Default frazil/audit.jsonl.
        audit_file: String,
        /// Calls of one token in a minute. Default 240.
        calls_per_minute: Number<u32>,
        /// Calls of one token at once. Default 8.
        calls_at_once: Number<u32>,
        /// How long one call may take. Default 30s.
        timeout: Span,
        /// Bytes of data files that one call may read. Default 10GiB.
        max_scan: Size,
    }

    /// The HTTP listener: /api, /iceberg, /mcp, /metrics, /livez, /readyz.
    ServerSettings {
        /// Address and port. Default 127.0.0.1:8181. Anything but loopback needs tls and auth.
        listen: String,
        /// The listener's certificate; plain HTTP without it.
        tls: ServerTlsSettings,
        /// Who may call.
        auth: AuthSettings,
    }

    /// The listener's certificate.
    ServerTlsSettings {
        /// PEM file of the certificate chain.
        cert: String,
        /// PEM file of the key.
        key: String,
    }

    /// Who may call the listener.
    AuthSettings {
        /// Bearer tokens. Without any, every caller on loopback may do everything.
        tokens: Vec<TokenSettings>,
    }

    /// A bearer token.
    TokenSettings {
        /// Its name in logs. Required.
        name: String,
        /// SHA-256 of its text, as sha256: and 64 hex digits. Required.
        hash: TokenHash,
        /// What it may do. Required.
        scopes: Vec<Scope>,
    }

    /// Logs.
    LogSettings {
        /// For people or for machines. Default text.
        format: LogFormat,
        /// Least level shown, and exceptions by module, as in info,frazil::lake=debug. Default info.
        level: String,
    }

    /// How keys are read.
    KeySettings {
        /// Their format. Default auto.
        format: KeyFormatWord,
        /// The schema, for formats avro, protobuf and json.
        schema: String,
        /// File with the schema, for formats avro, protobuf and json.
        schema_file: String,
        /// The registry's subject. Default `<topic>-key`, of the first topic.
        subject: String,
        /// The columns made of them. Default flatten.
        columns: KeyColumns,
    }

    /// How values are read.
    ValueSettings {
        /// Their format. Default auto.
        format: ValueFormatWord,
        /// The schema, for formats avro, protobuf and json.
        schema: String,
        /// File with the schema, for formats avro, protobuf and json.
        schema_file: String,
        /// The registry's subject. Default `<topic>-value`, of the first topic.
        subject: String,
    }

    /// Which of a record's fields have columns, and what those are called.
    ColumnSettings {
        /// The fields to have, of key and value; a.b for a field inside another. Default all.
        include: Vec<String>,
        /// The fields to leave out. Default none.
        exclude: Vec<String>,
        /// Fields whose columns are called otherwise, each with the column's name. Default none.
        rename: BTreeMap<String, String>,
    }

    /// Columns about the record itself.
    MetadataSettings {
        /// Their naming scheme. Default kafka.
        names: MetadataNames,
        /// The columns to have; partition and offset must be among them. Default: those of the naming scheme.
        include: Vec<MetadataColumn>,
    }
}

table_options! {
    /// Settings for every table.
    Defaults {
        /// Namespace of tables that are named without one. Default lake.
        namespace: String,
    }
    /// A table and the topics that fill it.
    TableSettings {
        /// The topic that fills the table.
        topic: String,
        /// The topics that fill the table, instead of topic.
        topics: Vec<String>,
        /// A regular expression: all topics whose names it matches, those that come later included.
        topic_pattern: String,
        /// The table's name; {topic} stands for the topic. {record_name}, {header:x} and {field:a.b} make a table for
        /// each type of a record, value of a header or of a field. Default: the topic's name in the default namespace.
        table: String,
        /// Where the table lies. Default: below the warehouse.
        location: String,
        /// A topic that takes each dead letter, too, once. Default none.
        dead_letter_topic: String,
        /// Makes the table searchable. Default: it is not.
        index: TableIndexSettings,
        /// The rows to have: a condition in SQL over the table's columns. Default all.
        r#where: String,
    }
    both {
        /// How keys are read.
        key: KeySettings,
        /// How values are read.
        value: ValueSettings,
        /// Where reading begins: earliest, latest, a time, or offsets by partition. Default earliest.
        start: Start,
        /// Which of a record's fields have columns, and what those are called. Default all, by their own names.
        columns: ColumnSettings,
        /// Columns about the record itself.
        metadata_columns: MetadataSettings,
        /// What becomes of a table of this name that another tool made. Default refuse.
        existing: ExistingWord,
        /// Partition fields, outermost first. Default none.
        partition_by: Vec<Partitioning>,
        /// Columns that rows are sorted by inside a file. Default none.
        sort_by: Vec<String>,
        /// Iceberg format version of a new table: 2 or 3. Default 2.
        format_version: FormatVersion,
        /// A commit is made after this time at the latest. Default 10s.
        commit_interval: Span,
        /// A commit is made at this number of bytes received. Default 512MiB.
        commit_bytes: Size,
        /// A commit is made at this number of rows. Default: no such bound.
        commit_rows: Number<u64>,
        /// What a Protobuf `oneof` becomes. Default struct.
        oneof: OneofWord,
        /// What text of a JSON Schema `format` becomes. Default string.
        json_formats: JsonFormatsWord,
        /// What becomes of a schema that the table's columns do not fit as they are. Default extend.
        evolution: EvolutionWord,
        /// What becomes of a record that cannot be a row. Default dead_letter.
        on_error: OnError,
        /// What becomes of a record with a key and no value. Default keep.
        on_tombstone: OnTombstone,
        /// What happens where offsets are gone before they were read. Default fail.
        on_gap: OnGap,
        /// What happens where a topic was made anew. Default fail.
        on_topic_change: OnTopicChange,
        /// How a time of day is stored. Default long, or time with the tableflow names.
        time_as: TimeAs,
        /// Whether required fields become required columns. Default optional.
        nullability: Nullability,
        /// Compression of data files: zstd(1) to zstd(22), lz4, snappy, none. Default zstd(1).
        compression: Compression,
        /// Larger records are errors. Default 16MiB.
        max_record_bytes: Size,
        /// Iceberg table properties, set when the table is made.
        properties: BTreeMap<String, String>,
    }
}
