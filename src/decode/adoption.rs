//! Whether records fit into the columns of a table that another tool made, and what the table lacks for them. Decides;
//! changes nothing.
//!
//! A take-over only adds: what was there keeps its type and stays required, so that whoever else uses the table finds
//! it as it was. What a schema changes later goes by `evolution`, as in any other table.

use super::evolution::{Evolution, evolved};
use super::identity::branched;
use super::layout::Layout;
use super::mapping::position;
use crate::model::schema::{Field, TableSchema, Type};

/// What keeps records from going into a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// What of the table: ``column `id` ``.
    pub what: String,
    /// What is the matter with it.
    pub found: String,
    /// What to do about it.
    pub remedy: String,
}

/// `table` with the columns that records lack in it; as it is where they lack none. `wanted` are the records' columns,
/// required where no record leaves them out; `is_open` says that there may be more, known with the first record.
///
/// # Errors
/// All that does not fit, in the order of the table's columns.
pub fn adopted(
    table: &TableSchema,
    wanted: &TableSchema,
    is_open: bool,
    layout: &Layout,
) -> Result<TableSchema, Vec<Misfit>> {
    let mut fit = Fit { layout, is_open, misfits: Vec::new() };
    fit.fields(&table.fields, &wanted.fields, "");
    if !fit.misfits.is_empty() {
        return Err(fit.misfits);
    }
    match evolved(table, wanted, layout) {
        Ok(changed) => Ok(changed.unwrap_or_else(|| table.clone())),
        Err(found) => {
            let remedy = "write to another table".to_owned();
            Err(vec![Misfit { what: "columns".to_owned(), found, remedy }])
        }
    }
}

struct Fit<'a> {
    layout: &'a Layout,
    is_open: bool,
    misfits: Vec<Misfit>,
}

impl Fit<'_> {
    fn fields(&mut self, table: &[Field], wanted: &[Field], path: &str) {
        let sources: Vec<Option<&Field>> =
            (0..table.len()).map(|at| wanted.iter().find(|field| position(table, &field.name) == Some(at))).collect();
        for (column, source) in table.iter().zip(sources) {
            let path = format!("{path}{}", column.name);
            match source {
                Some(field) if path == column.name && self.layout.is_metadata(&column.name) => {
                    self.metadata(column, field);
                }
                Some(field) if self.has_own_branch(column, field) => self.unfilled(column, &path),
                Some(field) => self.item(column, field, &path),
                None => self.unfilled(column, &path),
            }
        }
    }

    /// A column that no field of the records goes into.
    fn unfilled(&mut self, column: &Field, path: &str) {
        if !column.required || column.marks.write_default.is_some() {
            return;
        }
        let (found, remedy) = if self.is_open {
            (
                "is required, and whether the records have it is known only with the first of them",
                "register their schema first, or make the column optional",
            )
        } else {
            ("is required, and the records have no such field", "make the column optional, or give them the field")
        };
        self.misfit(path, found, remedy);
    }

    fn item(&mut self, column: &Field, field: &Field, path: &str) {
        match (&column.kind, &field.kind) {
            (Type::Struct(columns), Type::Struct(fields)) => self.fields(columns, fields, &format!("{path}.")),
            (Type::List(column), Type::List(field)) => self.item(column, field, &format!("{path}.element")),
            (Type::Map(key, column), Type::Map(field_key, field)) if same_text(key, field_key) => {
                self.item(column, field, &format!("{path}.value"));
            }
            (kind, wanted) if !kind.is_nested() && kind.takes(wanted) => {}
            (kind, wanted) => {
                let found = format!("is {kind} in the table and {wanted} in the records");
                let remedy = if kind.becomes(wanted) {
                    format!("promote it to {wanted} with the engine that keeps the table")
                } else {
                    "write to another table, or set `evolution: branch`, which gives such a field a column of its own"
                        .to_owned()
                };
                self.misfit(path, found, remedy);
                return;
            }
        }
        if column.required && !field.required {
            self.misfit(path, "is required, and the records may have none", "make the column optional");
        }
    }

    /// A column that records get beside their own fields: as Frazil makes it, but for a wider number.
    fn metadata(&mut self, column: &Field, field: &Field) {
        let is_wider = (&column.kind, &field.kind) == (&Type::Long, &Type::Int);
        let remedy = "rename it, or choose other names by `metadata_columns.names`";
        if !is_wider && !same_text(column, field) {
            let found =
                format!("is {} in the table, and frazil's own column of that name is {}", column.kind, field.kind);
            self.misfit(&column.name, found, remedy);
        } else if is_required_within(column, field) {
            self.misfit(&column.name, "is required, and frazil's own column of that name may be null", remedy);
        }
    }

    /// True where the field gets a column of its own beside that of its name.
    fn has_own_branch(&self, column: &Field, field: &Field) -> bool {
        let is_other = match (&column.kind, &field.kind) {
            (Type::Struct(_), Type::Struct(_)) | (Type::List(_), Type::List(_)) | (Type::Map(..), Type::Map(..)) => {
                false
            }
            (kind, wanted) => !kind.takes(wanted) && !kind.becomes(wanted),
        };
        self.layout.evolution == Evolution::Branch && is_other && column.name != branched(field).name
    }

    fn misfit(&mut self, path: &str, found: impl Into<String>, remedy: impl Into<String>) {
        let (found, remedy) = (found.into(), remedy.into());
        self.misfits.push(Misfit { what: format!("column `{path}`"), found, remedy });
    }
}

/// True for fields of one type, whatever their ids.
fn same_text(one: &Field, other: &Field) -> bool {
    one.kind.to_string() == other.kind.to_string()
}

/// True where `column` or a field inside it is required, and that of `wanted` is not. Both are of one type.
fn is_required_within(column: &Field, wanted: &Field) -> bool {
    let all = |columns: &[Field], wanted: &[Field]| {
        columns.iter().zip(wanted).any(|(column, wanted)| is_required_within(column, wanted))
    };
    let within = match (&column.kind, &wanted.kind) {
        (Type::Struct(columns), Type::Struct(wanted)) => all(columns, wanted),
        (Type::List(column), Type::List(wanted)) => is_required_within(column, wanted),
        (Type::Map(_, column), Type::Map(_, wanted)) => is_required_within(column, wanted),
        _ => false,
    };
    within || (column.required && !wanted.required)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::layout::{Format, Given, KeyColumns, Metadata, MetadataNames, Tombstones};
    use crate::decode::mapping::{Added, MappingOptions};
    use crate::model::schema::Marks;

    fn layout(evolution: Evolution) -> Layout {
        Layout {
            key_format: Format::None,
            key_columns: KeyColumns::None,
            value_format: Format::Registry,
            names: MetadataNames::Kafka,
            metadata: vec![Metadata::Partition, Metadata::Headers, Metadata::Offset],
            mapping: MappingOptions { keep_required: true, added: Added::Optional, ..MappingOptions::default() },
            tombstones: Tombstones::Keep,
            record_bytes_max: 1 << 20,
            evolution,
            partitioned: Vec::new(),
            pinned: Vec::new(),
            given: Given::default(),
            projection: std::sync::Arc::default(),
        }
    }

    /// Records of `id` (always there), `note`, and a struct `s` of `x` (always there) and `y`.
    fn wanted(layout: &Layout) -> TableSchema {
        let s = Type::Struct(vec![Field::required("x", Type::Int), Field::optional("y", Type::String)]);
        let fields =
            vec![Field::required("id", Type::Long), Field::optional("note", Type::String), Field::optional("s", s)];
        layout
            .table_schema(crate::decode::schema::Columns::Nothing, crate::decode::schema::Columns::Each(fields))
            .unwrap()
    }

    /// The columns after a take-over, `!` behind those that are required; or what does not fit, in words.
    fn take(evolution: Evolution, is_open: bool, table: Vec<Field>) -> Result<Vec<String>, String> {
        let (layout, table) = (layout(evolution), TableSchema::of(table));
        let shown = |field: &Field| format!("{} {}{}", field.name, field.kind, if field.required { "!" } else { "" });
        match adopted(&table, &wanted(&layout), is_open, &layout) {
            Ok(schema) => Ok(schema.fields.iter().map(shown).collect()),
            Err(misfits) => {
                assert!(misfits.iter().all(|misfit| !misfit.remedy.is_empty()));
                let all: Vec<String> = misfits.into_iter().map(|m| format!("{} {}", m.what, m.found)).collect();
                Err(all.join("; "))
            }
        }
    }

    #[track_caller]
    fn refused(table: Vec<Field>, expected: &str) {
        assert_eq!(take(Evolution::Extend, false, table), Err(expected.to_owned()));
    }

    const HEADERS: &str = "kafka_headers list<struct<key: string, value: binary>>";

    #[test]
    fn what_was_there_stays_as_it_was_and_the_rest_is_added_behind() {
        let table = vec![
            Field::optional("theirs", Type::Date),
            Field::required("ID", Type::Long),
            Field::optional("kafka_offset", Type::Long),
            Field::optional("kafka_partition", Type::Long),
            Field::required("s", Type::Struct(vec![Field::required("x", Type::Long)])),
        ];
        let (before, inner) = (table.clone(), "s struct<x: long, y: string>!");
        // A struct that may be missing in the records does not go into one that never is.
        refused(table, "column `s` is required, and the records may have none");
        let mut table = before;
        table[4].required = false;
        let after = take(Evolution::Extend, false, table).unwrap();
        let expected = ["theirs date", "ID long!", "note string", "kafka_offset long", "kafka_partition long"];
        assert_eq!(after[..5], expected);
        assert_eq!(after[5..], [inner.trim_end_matches('!'), HEADERS]);
    }

    #[test]
    fn fields_of_added_columns_are_optional() {
        let (layout, table) = (layout(Evolution::Extend), TableSchema::default());
        let schema = adopted(&table, &wanted(&layout), false, &layout).unwrap();
        let Type::Struct(inner) = &schema.field("s").unwrap().kind else { panic!("no struct") };
        assert!(inner.iter().chain([schema.field("id").unwrap()]).all(|field| !field.required));
    }

    #[test]
    fn each_column_that_does_not_fit_is_named() {
        let table = vec![
            Field::required("theirs", Type::Date),
            Field::required("note", Type::String),
            Field::optional("id", Type::Int),
            Field::optional(
                "s",
                Type::Struct(vec![Field::optional("x", Type::String), Field::required("z", Type::Int)]),
            ),
        ];
        refused(
            table,
            "column `theirs` is required, and the records have no such field; column `note` is required, and the \
             records may have none; column `id` is int in the table and long in the records; column `s.x` is string in \
             the table and int in the records; column `s.z` is required, and the records have no such field",
        );
    }

    #[test]
    fn frazils_own_columns_must_be_as_it_makes_them() {
        refused(
            vec![Field::optional("kafka_offset", Type::Int)],
            "column `kafka_offset` is int in the table, and frazil's own column of that name is long",
        );
        refused(
            vec![Field::required("kafka_partition", Type::Int)],
            "column `kafka_partition` is required, and frazil's own column of that name may be null",
        );
        let entry = vec![Field::required("value", Type::Binary), Field::required("key", Type::String)];
        let headers = Type::List(Box::new(Field::optional("element", Type::Struct(entry))));
        refused(
            vec![Field::optional("kafka_headers", headers)],
            "column `kafka_headers` is list<struct<value: binary, key: string>> in the table, and frazil's own column \
             of that name is list<struct<key: string, value: binary>>",
        );
    }

    #[test]
    fn a_default_fills_what_the_records_lack() {
        let marks = Marks { write_default: Some(vec![0; 4]), ..Marks::default() };
        let table = vec![Field { marks, ..Field::required("theirs", Type::Date) }];
        assert_eq!(take(Evolution::Extend, false, table).unwrap()[0], "theirs date!");
    }

    #[test]
    fn before_the_first_record_nothing_may_be_required() {
        let open = take(Evolution::Extend, true, vec![Field::required("theirs", Type::Date)]);
        assert!(open.unwrap_err().contains("known only with the first"));
    }

    #[test]
    fn another_type_gets_a_column_of_its_own_where_that_is_asked_for() {
        let table = || vec![Field::optional("note", Type::Boolean), Field::optional("id", Type::Int)];
        refused(
            table(),
            "column `note` is boolean in the table and string in the records; column `id` is int in the table and long in the records",
        );
        // What could be promoted is not given a second column.
        let branch = take(Evolution::Branch, false, table());
        assert_eq!(branch, Err("column `id` is int in the table and long in the records".to_owned()));
        let after = take(Evolution::Branch, false, vec![Field::optional("note", Type::Boolean)]).unwrap();
        assert_eq!(after[..3], ["note boolean", "id long", "note__string string"]);
    }
}
