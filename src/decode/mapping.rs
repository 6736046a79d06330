//! What the mappings of all formats share: their options, names of columns, which types a column takes.

use super::identity::{branched, matching};
use crate::error::{Error, Result};
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};

/// How values without one natural column type are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "settings, each for itself")]
pub struct MappingOptions {
    /// What a time of day becomes.
    pub time_as: TimeAs,
    /// What a uuid becomes: its own type, or text as Tableflow has it.
    pub uuid_as_string: bool,
    /// True where a field without a null branch becomes a required column.
    pub keep_required: bool,
    /// What columns are that a table gets later.
    pub added: Added,
    /// What the table's format has to offer.
    pub format: TableFormat,
    /// True where an unsigned number of 64 bits becomes a long, as Tableflow has it, instead of a decimal.
    pub uint64_as_long: bool,
    /// What a Protobuf `oneof` becomes.
    pub oneof: OneofAs,
    /// What text of a JSON Schema `format` becomes.
    pub json_formats: JsonFormats,
    /// True where fields go by their own names alone, whatever aliases a schema has for them.
    pub by_name: bool,
}

impl Default for MappingOptions {
    fn default() -> Self {
        Self {
            time_as: TimeAs::Long,
            uuid_as_string: false,
            keep_required: false,
            added: Added::AsWritten,
            format: TableFormat::V2,
            uint64_as_long: false,
            oneof: OneofAs::Struct,
            json_formats: JsonFormats::Text,
            by_name: false,
        }
    }
}

/// What columns are that a table gets later; at the top they are optional always, since older rows lack them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// Fields inside them are required where the schema's are, as far as that is kept.
    AsWritten,
    /// Fields inside them are optional, too.
    Optional,
}

/// What an Iceberg format version has to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TableFormat {
    /// Instants of microseconds.
    V2,
    /// Instants of nanoseconds beside them, and defaults of columns.
    V3,
}

impl TableFormat {
    /// What version `version` has to offer.
    #[must_use]
    pub fn of(version: u8) -> Self {
        if version >= 3 { Self::V3 } else { Self::V2 }
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
    free_name(name, |name| siblings.iter().all(|field| !field.name.eq_ignore_ascii_case(name)))
}

/// The name, or with the first suffix that makes it free.
pub(super) fn free_name(name: &str, is_free: impl Fn(&str) -> bool) -> String {
    if is_free(name) {
        return name.to_owned();
    }
    (2..).map(|n| format!("{name}_{n}")).find(|name| is_free(name)).unwrap_or_default()
}

/// The columns of `table`, of which only those at `open` are to be had, for the fields of one record, message or object.
pub(super) struct ColumnsFor<'a> {
    table: &'a [Field],
    open: &'a [usize],
    found: std::vec::IntoIter<Option<(Field, Option<usize>)>>,
}

impl<'a> ColumnsFor<'a> {
    /// `outer` is the path to the fields, with a dot behind, or empty.
    pub(super) fn new(
        projection: &Projection,
        table: &'a [Field],
        open: &'a [usize],
        fields: &[Field],
        outer: &str,
    ) -> Self {
        Self { table, open, found: columns_of(projection, table, fields, outer).into_iter() }
    }

    /// The column that takes the values of the next field, which is at `path`; `nullable` says whether null is one of
    /// them. `None` where it has none.
    ///
    /// # Errors
    /// `InvalidRecord` where its column cannot take them; `path` names it.
    pub(super) fn next(&mut self, nullable: bool, path: &str) -> Result<Option<usize>> {
        let (table, is_open) = (self.table, |index: &usize| self.open.contains(index));
        let Some((wanted, column)) = self.found.next().flatten() else { return Ok(None) };
        let Some(mut index) = column.filter(is_open) else { return Ok(None) };
        if !table[index].kind.takes(&wanted.kind) {
            let branch = matching(table, &[branched(&wanted)])[0].filter(is_open);
            let branch = branch.filter(|branch| table[*branch].kind.takes(&wanted.kind));
            index = branch.ok_or_else(|| mismatch(path, &wanted.kind, &table[index].kind))?;
        }
        if table[index].required && nullable {
            let text = format!("column `{path}` is required in the table and optional in the schema");
            return Err(Error::invalid_record(text));
        }
        Ok(Some(index))
    }
}

/// For each of `fields`, to which `outer` is the path, what the table is to have of it, and the index of its column;
/// `None` for those that are left out.
pub(super) fn columns_of(
    projection: &Projection,
    table: &[Field],
    fields: &[Field],
    outer: &str,
) -> Vec<Option<(Field, Option<usize>)>> {
    let chosen: Vec<Option<Field>> = fields.iter().map(|field| projection.column(field.clone(), outer)).collect();
    let wanted: Vec<Field> = chosen.iter().flatten().cloned().collect();
    let mut found = matching(table, &wanted).into_iter();
    chosen.into_iter().map(|field| Some((field?, found.next().flatten()))).collect()
}

/// The field of that name, else of one that differs by case alone.
pub(super) fn position(fields: &[Field], name: &str) -> Option<usize> {
    let exact = fields.iter().position(|field| field.name == name);
    exact.or_else(|| fields.iter().position(|field| field.name.eq_ignore_ascii_case(name)))
}

/// The error for a column that cannot take what a schema has for it.
pub(super) fn mismatch(name: &str, found: &Type, wanted: &Type) -> Error {
    Error::invalid_record(format!("column `{name}` is {wanted} in the table and {found} in the schema"))
}
