//! What the formats of a table's keys and values come to, by the registry's subjects. The same decisions as a running
//! table makes, which makes the rest of them at its first record.

use super::services::Subjects;
use crate::decode::avro::schema::{Schema, parse};
use crate::decode::layout::{Format, KeyColumns, Layout, Side};
use crate::model::schema::Type;
use crate::ports::SchemaFormat;

/// One side of a table's records.
pub(super) enum Chosen {
    /// By this schema; with its subject and id in words.
    Avro(Schema, String),
    /// One column of this type.
    Column(Type, &'static str),
    /// No columns.
    Nothing,
    /// Known with the first record.
    Open(String),
}

impl Chosen {
    pub(super) fn side(&self) -> Side<'_> {
        match self {
            Self::Avro(schema, _) => Side::Avro(schema),
            Self::Column(kind, _) => Side::Column(kind),
            Self::Nothing | Self::Open(_) => Side::Nothing,
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Avro(_, by) | Self::Open(by) => by.clone(),
            Self::Column(_, word) => (*word).to_owned(),
            Self::Nothing => "not stored".to_owned(),
        }
    }
}

/// Key and value.
///
/// # Errors
/// Why a subject's schema cannot be read.
pub(super) fn choose(
    layout: &Layout,
    topic: &str,
    subjects: &Subjects,
    has_registry: bool,
) -> Result<(Chosen, Chosen), String> {
    let side = |format, side: &str| choose_side(format, &format!("{topic}-{side}"), subjects, has_registry);
    let key = match layout.key_columns {
        KeyColumns::None => Chosen::Nothing,
        KeyColumns::Raw => Chosen::Column(Type::Binary, "bytes"),
        KeyColumns::Flatten | KeyColumns::Struct => side(layout.key_format, "key")?,
    };
    Ok((key, side(layout.value_format, "value")?))
}

fn choose_side(format: Format, subject: &str, subjects: &Subjects, has_registry: bool) -> Result<Chosen, String> {
    match format {
        Format::None => return Ok(Chosen::Nothing),
        Format::String => return Ok(Chosen::Column(Type::String, "string")),
        Format::Bytes => return Ok(Chosen::Column(Type::Binary, "bytes")),
        Format::Auto if !has_registry => return Ok(Chosen::Column(Type::Binary, "bytes, as there is no registry")),
        Format::Auto | Format::Registry => {}
    }
    let Some(found) = subjects.get(subject).and_then(Option::as_ref) else {
        let open = match format {
            Format::Auto => format!("open until the first record, as there is no subject `{subject}`"),
            _ => format!("registry, columns with the first record, as there is no subject `{subject}`"),
        };
        return Ok(Chosen::Open(open));
    };
    if found.format != SchemaFormat::Avro {
        return Err(format!("subject `{subject}` is {:?}, which cannot be read yet", found.format));
    }
    match parse(found) {
        Ok(schema) => Ok(Chosen::Avro(schema, format!("avro by subject `{subject}` (schema id {})", found.id))),
        Err(error) => Err(format!("subject `{subject}` cannot be read: {}", error.chain())),
    }
}
