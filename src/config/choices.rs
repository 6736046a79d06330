//! Settings that are one word of a closed list, and how each word is written. No setting with inner structure.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Makes an enum of words: each variant with its one spelling, for reading, showing and storing.
macro_rules! words {
    ($($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
            #[schemars(inline)]
            pub enum $name {
                $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)*
            }

            impl $name {
                /// The word as it is written in the configuration.
                #[must_use]
                pub fn as_str(self) -> &'static str {
                    match self {
                        $(Self::$variant => $word,)*
                    }
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(self.as_str())
                }
            }
        )*
    };
}

words! {
    /// Which kind of catalog holds the tables.
    CatalogType {
        /// Embedded, in SQLite or Postgres, in the JDBC catalog's schema.
        Sql = "sql",
    }

    /// Which model turns text into vectors.
    IndexModel {
        /// Built in: a static model of 256 dimensions, English, some hundred thousand short texts a second and core.
        Static = "static",
    }

    /// How a record's key is read, as written.
    KeyFormatWord {
        /// By what the bytes and the registry say.
        Auto = "auto",
        /// Avro, Protobuf or JSON, framed with a schema id of the registry or with one in a header.
        Registry = "registry",
        /// Avro without framing, by the schema given here.
        Avro = "avro",
        /// Protobuf without framing, by the schema given here; its first message.
        Protobuf = "protobuf",
        /// JSON without framing, by the schema given here.
        Json = "json",
        /// UTF-8 text.
        String = "string",
        /// Bytes as they are.
        Bytes = "bytes",
        /// The key is not read.
        None = "none",
    }

    /// What becomes of a table of the configured name that another tool made.
    ExistingWord {
        /// It is left as it is, and the table stops with the reason.
        Refuse = "refuse",
        /// Where its columns fit it is taken over: columns that it lacks are added, and rows are appended.
        Adopt = "adopt",
    }

    /// What columns are made of a key.
    KeyColumns {
        /// One column per field; an atomic key becomes column `key`.
        Flatten = "flatten",
        /// One column `key` with the key's fields inside.
        Struct = "struct",
        /// One column `key` with the key's bytes.
        Raw = "raw",
        /// None.
        None = "none",
    }

    /// How a record's value is read, as written.
    ValueFormatWord {
        /// By what the bytes and the registry say.
        Auto = "auto",
        /// Avro, Protobuf or JSON, framed with a schema id of the registry or with one in a header.
        Registry = "registry",
        /// Avro without framing, by the schema given here.
        Avro = "avro",
        /// Protobuf without framing, by the schema given here; its first message.
        Protobuf = "protobuf",
        /// JSON without framing, by the schema given here, or without one: types are then taken from the values.
        Json = "json",
        /// UTF-8 text in one column.
        String = "string",
        /// Bytes in one column.
        Bytes = "bytes",
    }

    /// The naming scheme of the metadata columns.
    MetadataNames {
        /// `kafka_offset` and so on.
        Kafka = "kafka",
        /// `$$offset` and so on.
        Tableflow = "tableflow",
        /// `cflt_metadata_offset` and so on.
        TableflowPortable = "tableflow-portable",
    }

    /// A metadata column, by its meaning; the order is the order in the table.
    MetadataColumn {
        /// The topic's name.
        Topic = "topic",
        /// The partition's number.
        Partition = "partition",
        /// The record's headers.
        Headers = "headers",
        /// The epoch of the leader that took the record.
        LeaderEpoch = "leader_epoch",
        /// The record's offset.
        Offset = "offset",
        /// The record's timestamp.
        Timestamp = "timestamp",
        /// Who set the timestamp.
        TimestampType = "timestamp_type",
        /// The key's bytes.
        RawKey = "raw_key",
        /// The value's bytes.
        RawValue = "raw_value",
    }

    /// What becomes of a record that cannot be a row.
    OnError {
        /// It goes into the table `<table>__dead_letters`.
        DeadLetter = "dead_letter",
        /// The table stops until it is resumed.
        Suspend = "suspend",
        /// It is counted and left out.
        Skip = "skip",
    }

    /// What becomes of a record that has a key and no value.
    OnTombstone {
        /// It becomes a row of nulls beside its key.
        Keep = "keep",
        /// It becomes a dead letter.
        DeadLetter = "dead_letter",
    }

    /// What becomes of a schema that the table's columns do not fit as they are.
    EvolutionWord {
        /// Columns are added, promoted, relaxed and renamed; records of a schema that fits none the less are rejected.
        Extend = "extend",
        /// As extend, and columns that the newest schema no longer has are dropped.
        Full = "full",
        /// As extend, but nothing is renamed, and a schema that does not fit suspends the table.
        Strict = "strict",
        /// As extend, but a field of another type gets a column of its own, `name__type`.
        Branch = "branch",
    }

    /// What happens where offsets are gone before they were read.
    OnGap {
        /// The table stops.
        Fail = "fail",
        /// It goes on behind the gap, and the range is recorded.
        Continue = "continue",
    }

    /// What happens where a topic was deleted and made anew.
    OnTopicChange {
        /// The table stops.
        Fail = "fail",
        /// It starts at offset 0 as a new incarnation, which becomes part of a row's identity.
        NewIncarnation = "new_incarnation",
    }

    /// How a time of day is stored.
    TimeAs {
        /// Microseconds since midnight; every engine can read it.
        Long = "long",
        /// Iceberg's `time`; Spark cannot load a table that has it.
        Time = "time",
        /// ISO 8601 text.
        String = "string",
    }

    /// What a Protobuf `oneof` becomes.
    OneofWord {
        /// A struct of its members, each optional.
        Struct = "struct",
        /// Its members, each an optional column beside the others.
        Flat = "flat",
    }

    /// What text of a JSON Schema `format` becomes.
    JsonFormatsWord {
        /// Text, whatever it says.
        String = "string",
        /// `date-time`, `date`, `time` and `uuid` become types of their own.
        Typed = "typed",
    }

    /// Whether required fields become required columns.
    Nullability {
        /// Every column is optional.
        Optional = "optional",
        /// As the schema has it.
        AsWritten = "as_written",
    }

    /// How logs are written.
    LogFormat {
        /// For people.
        Text = "text",
        /// One JSON object per line.
        Json = "json",
    }

    /// What a token may do.
    Scope {
        /// Read tables, status and their data; the next three included.
        Read = "read",
        /// Search.
        ReadSearch = "read:search",
        /// Ask with SQL.
        ReadSql = "read:sql",
        /// Look into topics and schemas.
        ReadKafka = "read:kafka",
        /// Commit to tables.
        Write = "write",
        /// Operate: resume, alter, maintain.
        Admin = "admin",
        /// Read metrics.
        Metrics = "metrics",
    }
}
