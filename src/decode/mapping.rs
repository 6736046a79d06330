//! What the mappings of all formats share: their options, names of columns, which types a column takes.

use crate::error::{Error, Result};
use crate::model::schema::{Field, Type};

/// How values without one natural column type are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MappingOptions {
    /// What a time of day becomes.
    pub time_as: TimeAs,
    /// What a uuid becomes: its own type, or text as Tableflow has it.
    pub uuid_as_string: bool,
    /// True where a field without a null branch becomes a required column.
    pub keep_required: bool,
    /// True where an unsigned number of 64 bits becomes a long, as Tableflow has it, instead of a decimal.
    pub uint64_as_long: bool,
    /// What a Protobuf `oneof` becomes.
    pub oneof: OneofAs,
    /// What text of a JSON Schema `format` becomes.
    pub json_formats: JsonFormats,
}

impl Default for MappingOptions {
    fn default() -> Self {
        Self {
            time_as: TimeAs::Long,
            uuid_as_string: false,
            keep_required: false,
            uint64_as_long: false,
            oneof: OneofAs::Struct,
            json_formats: JsonFormats::Text,
        }
    }
}

/// What a time of day becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeAs {
    /// Microseconds since midnight: Spark cannot load a table with a time column.
    Long,
    /// Iceberg's time.
    Time,
    /// `HH:MM:SS.ffffff`.
    String,
}

/// What a Protobuf `oneof` becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OneofAs {
    /// A struct of its members, each optional.
    Struct,
    /// Its members, each an optional column beside the others.
    Flat,
}

/// What text of a JSON Schema `format` becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonFormats {
    /// Text, whatever it says.
    Text,
    /// `date-time`, `date`, `time` and `uuid` become types of their own.
    Typed,
}

/// The comment of a column that holds a time of day as a number.
pub const TIME_DOC: &str = "microseconds since midnight";

/// The name, or with a suffix where a sibling before it differs only by case: engines compare names without case.
pub(super) fn unique_name(siblings: &[Field], name: &str) -> String {
    let taken = |name: &str| siblings.iter().any(|field| field.name.eq_ignore_ascii_case(name));
    if !taken(name) {
        return name.to_owned();
    }
    (2..).map(|n| format!("{name}_{n}")).find(|name| !taken(name)).unwrap_or_default()
}

/// The column of `table`, of which only `open` are to be had, that takes the values of `wanted`; `nullable` says
/// whether null is one of them.
///
/// # Errors
/// `InvalidRecord` where the column of that name cannot take them; `path` names it.
pub(super) fn column_for(
    table: &[Field],
    open: &[usize],
    wanted: &Field,
    nullable: bool,
    path: &str,
) -> Result<Option<usize>> {
    let named = |name: &str| named_among(table, open.iter().copied(), name);
    let Some(mut index) = named(&wanted.name) else { return Ok(None) };
    if !table[index].kind.takes(&wanted.kind) {
        let branch = named(&branch_name(wanted)).filter(|branch| table[*branch].kind.takes(&wanted.kind));
        index = branch.ok_or_else(|| mismatch(path, &wanted.kind, &table[index].kind))?;
    }
    let column = &table[index];
    if column.required && nullable {
        let text = format!("column `{path}` is required in the table and optional in the schema");
        return Err(Error::invalid_record(text));
    }
    Ok(Some(index))
}

/// The field of that name, else of one that differs by case alone.
pub(super) fn position(fields: &[Field], name: &str) -> Option<usize> {
    named_among(fields, 0..fields.len(), name)
}

/// As [`position`], among the fields at `indexes` alone.
fn named_among(fields: &[Field], mut indexes: impl Iterator<Item = usize> + Clone, name: &str) -> Option<usize> {
    let exact = indexes.clone().find(|index| fields[*index].name == name);
    exact.or_else(|| indexes.find(|index| fields[*index].name.eq_ignore_ascii_case(name)))
}

/// The name of the column for values of a field whose own column is of another type.
pub(super) fn branch_name(field: &Field) -> String {
    let kind = match &field.kind {
        Type::Struct(_) => "struct".to_owned(),
        Type::List(_) => "list".to_owned(),
        Type::Map(..) => "map".to_owned(),
        Type::Decimal(precision, scale) => format!("decimal_{precision}_{scale}"),
        Type::Fixed(bytes) => format!("fixed_{bytes}"),
        kind => kind.to_string(),
    };
    format!("{}__{kind}", field.name)
}

/// The error for a column that cannot take what a schema has for it.
pub(super) fn mismatch(name: &str, found: &Type, wanted: &Type) -> Error {
    Error::invalid_record(format!("column `{name}` is {wanted} in the table and {found} in the schema"))
}
