//! What the formats of a table's keys and values come to, by the registry's subjects. The same decisions as a running
//! table makes, which makes the rest of them at its first record.

use std::sync::Arc;

use super::services::Subjects;
use crate::decode::MessagePath;
use crate::decode::layout::{Format, GivenSchema, KeyColumns, Layout};
use crate::decode::schema::{Columns, Schema};
use crate::error::Result;
use crate::model::schema::Type;
use crate::pipeline::driver::TableSpec;

/// One side of a table's records.
pub(super) enum Chosen {
    /// By this schema; with its subject and id in words, and its id in the registry, 0 where it has none.
    Schema(Arc<Schema>, String, u32),
    /// One column of this type.
    Column(Type, &'static str),
    /// No columns.
    Nothing,
    /// Known with the first record.
    Open(String),
}

impl Chosen {
    /// The columns that it makes.
    ///
    /// # Errors
    /// Which field has no column type.
    pub(super) fn columns(&self, layout: &Layout) -> Result<Columns> {
        match self {
            Self::Schema(schema, ..) => schema.columns(MessagePath::FIRST, layout.mapping),
            Self::Column(kind, _) => Ok(Columns::One(kind.clone())),
            Self::Nothing | Self::Open(_) => Ok(Columns::Nothing),
        }
    }

    /// The name of its type of record, and the id of its schema.
    pub(super) fn version(&self) -> Option<(String, u32)> {
        let Self::Schema(schema, _, id) = self else { return None };
        Some((schema.name(MessagePath::FIRST)?.to_owned(), *id))
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open(_))
    }

    pub(super) fn text(&self) -> String {
        match self {
            Self::Schema(_, by, _) | Self::Open(by) => by.clone(),
            Self::Column(_, word) => (*word).to_owned(),
            Self::Nothing => "not stored".to_owned(),
        }
    }
}

/// Key and value.
///
/// # Errors
/// Why a subject's schema cannot be read.
pub(super) fn choose(spec: &TableSpec, subjects: &Subjects, has_registry: bool) -> Result<(Chosen, Chosen), String> {
    let layout = &spec.layout;
    let side = |format, subject, given| choose_side(format, subject, given, subjects, has_registry);
    let key = match layout.key_columns {
        KeyColumns::None => Chosen::Nothing,
        KeyColumns::Raw => Chosen::Column(Type::Binary, "bytes"),
        KeyColumns::Flatten | KeyColumns::Struct => {
            side(layout.key_format, &spec.subjects.key, layout.given.key.as_ref())?
        }
    };
    Ok((key, side(layout.value_format, &spec.subjects.value, layout.given.value.as_ref())?))
}

fn choose_side(
    format: Format,
    subject: &str,
    given: Option<&GivenSchema>,
    subjects: &Subjects,
    has_registry: bool,
) -> Result<Chosen, String> {
    match format {
        Format::None => return Ok(Chosen::Nothing),
        Format::String => return Ok(Chosen::Column(Type::String, "string")),
        Format::Bytes => return Ok(Chosen::Column(Type::Binary, "bytes")),
        Format::Json => return Ok(Chosen::Open("json without a schema, columns with the first records".to_owned())),
        Format::Given => {
            let schema = given.map(|given| {
                let by = format!("{} by the schema that the configuration gives", given.schema.language());
                Chosen::Schema(Arc::clone(&given.schema), by, 0)
            });
            return Ok(schema.unwrap_or(Chosen::Nothing));
        }
        Format::Auto if !has_registry => {
            let open = "json or bytes, known with the first record, as there is no registry";
            return Ok(Chosen::Open(open.to_owned()));
        }
        Format::Auto | Format::Registry => {}
    }
    let Some(found) = subjects.get(subject).and_then(Option::as_ref) else {
        let open = match format {
            Format::Auto => format!("open until the first record, as there is no subject `{subject}`"),
            _ => format!("registry, columns with the first record, as there is no subject `{subject}`"),
        };
        return Ok(Chosen::Open(open));
    };
    match Schema::parse(found) {
        Ok(schema) => {
            let by = format!("{} by subject `{subject}` (schema id {})", schema.language(), found.id);
            Ok(Chosen::Schema(Arc::new(schema), by, found.id))
        }
        Err(error) => Err(format!("subject `{subject}` cannot be read: {}", error.chain())),
    }
}
