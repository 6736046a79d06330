//! The field that a route goes by: decoded alone, for a table that nobody sees, and told as text. Which table a text
//! means is decided elsewhere.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, FieldRef, Int32Type, Int64Type};
use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::decode::evolution::Evolution;
use crate::decode::layout::{Format, GivenSchema, KeyColumns, Layout, Metadata, Tombstones};
use crate::decode::mapping::MappingOptions;
use crate::decode::schema::{Columns, Schema};
use crate::error::{Error, Result};
use crate::lake::rehearsal::Rehearsal;
use crate::lake::schema::numbered;
use crate::model::projection::Projection;
use crate::model::raw::RawBatch;
use crate::pipeline::driver::{RedecodePorts, Redecoder, TableSpec};
use crate::ports::{Recovery, RegisteredSchema, Registry, SchemaFormat, TableShape, TableState};
use crate::route::FieldTexts;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

/// Reads one field of records.
pub(super) struct RouteField {
    path: Vec<String>,
    /// True where the field's column has JSON documents.
    is_document: bool,
    spec: Arc<TableSpec>,
    state: TableState,
    registry: Option<Arc<dyn Registry>>,
    clock: Clock,
    compute: Compute,
    /// Opened by the first batch, since the registry may be away before.
    decoder: OnceCell<Redecoder>,
}

impl RouteField {
    /// For the field at `path`, dots between its parts, of the records that `spec` describes.
    ///
    /// # Errors
    /// `Bug` where the layout has no columns at all.
    pub(super) fn new(
        spec: &TableSpec,
        path: &str,
        registry: Option<Arc<dyn Registry>>,
        clock: Clock,
        compute: Compute,
    ) -> Result<Self> {
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        let is_document = spec.layout.value_format == Format::Json;
        let layout = layout(spec.layout.clone(), &path)?;
        let state = TableState {
            table: spec.settings.table.clone(),
            uuid: Uuid::nil(),
            snapshot_id: None,
            sequence_number: 0,
            schema: Arc::new(numbered(&layout.table_schema(Columns::Nothing, Columns::Nothing)?, 0)),
            recovery: Recovery::Fresh,
            rows: 0,
            newest_ms: None,
            properties: Arc::default(),
            shape: Arc::new(TableShape { format_version: 2, ..TableShape::default() }),
        };
        let (settings, subjects) = (spec.settings.clone(), spec.subjects.clone());
        let spec = Arc::new(TableSpec {
            settings,
            layout,
            filter: None,
            partition_by: Vec::new(),
            sort_by: Vec::new(),
            format_version: spec.format_version,
            properties: BTreeMap::new(),
            location: None,
            dead_letter_topic: None,
            adopts: false,
            subjects,
        });
        Ok(Self { path, is_document, spec, state, registry, clock, compute, decoder: OnceCell::new() })
    }

    async fn open(&self) -> Result<Redecoder> {
        let ports = RedecodePorts {
            registry: self.registry.clone(),
            lake: Arc::new(Rehearsal::of(self.state.clone())),
            clock: self.clock.clone(),
            compute: self.compute.clone(),
        };
        Redecoder::open(Arc::clone(&self.spec), ports).await
    }
}

#[async_trait]
impl FieldTexts for RouteField {
    async fn texts(&self, batch: RawBatch) -> Result<Vec<Option<Arc<str>>>> {
        let offsets: Vec<i64> = batch.records.iter().map(|record| record.offset).collect();
        let decoded = self.decoder.get_or_try_init(|| self.open()).await?.decode(batch, 0).await?;
        let name = Metadata::Offset.name(self.spec.layout.names);
        let mut found: HashMap<i64, Arc<str>> = HashMap::new();
        for part in decoded.rows {
            let at = part.rows.column_by_name(&name).and_then(|column| column.as_primitive_opt::<Int64Type>());
            let at = at.ok_or_else(|| Error::bug("records were decoded without their offsets"))?;
            let columns: Vec<_> = part.rows.schema_ref().fields().iter().zip(part.rows.columns()).collect();
            for row in 0..part.rows.num_rows() {
                let said = text(&columns, &self.path, row);
                let said = if self.is_document { said.as_deref().and_then(of_document) } else { said };
                found.extend(said.filter(|said| !said.is_empty()).map(|said| (at.value(row), said.into())));
            }
        }
        Ok(offsets.iter().map(|offset| found.remove(offset)).collect())
    }
}

/// As the records are read, but for nothing except the field: what its type is today must not decide where a record
/// goes, so each type has a column of its own, and JSON without a schema is not inferred.
fn layout(of: Layout, path: &[String]) -> Result<Layout> {
    let mut layout = Layout {
        key_columns: KeyColumns::None,
        metadata: vec![Metadata::Offset],
        tombstones: Tombstones::Keep,
        evolution: Evolution::Branch,
        partitioned: Vec::new(),
        // What another version calls the field must not decide, either.
        mapping: MappingOptions { by_name: true, ..of.mapping },
        pinned: vec![path.join(".")],
        projection: Arc::new(Projection { include: Some(vec![path.join(".")]), ..Projection::default() }),
        ..of
    };
    if layout.value_format == Format::Json {
        let field =
            path.iter().rev().fold(json!({}), |inner, name| json!({"type": "object", "properties": {name: inner}}));
        let (language, text) = (SchemaFormat::Json, field.to_string());
        let parsed = RegisteredSchema { id: 0, format: language, text: text.clone(), references: Vec::new() };
        let schema = Arc::new(Schema::parse(&parsed)?);
        layout.given.value = Some(GivenSchema { written: (language, text), schema });
        layout.value_format = Format::Given;
    }
    Ok(layout)
}

/// What the columns of the field at `path` say in that row; `None` where that is nothing, or nothing that names a table.
fn text(columns: &[(&FieldRef, &ArrayRef)], path: &[String], row: usize) -> Option<String> {
    let (name, rest) = path.split_first()?;
    let named = columns.iter().filter(|(field, _)| is_of(field.name(), name));
    named.filter(|(_, column)| column.is_valid(row)).find_map(|(_, column)| match column.data_type() {
        DataType::Struct(fields) => {
            let inside: Vec<_> = fields.iter().zip(column.as_struct().columns()).collect();
            text(&inside, rest, row)
        }
        _ if !rest.is_empty() => None,
        DataType::Utf8 => Some(column.as_string::<i32>().value(row).to_owned()),
        DataType::Int64 => Some(column.as_primitive::<Int64Type>().value(row).to_string()),
        DataType::Int32 => Some(column.as_primitive::<Int32Type>().value(row).to_string()),
        DataType::Boolean => Some(column.as_boolean().value(row).to_string()),
        DataType::Date32 | DataType::Decimal128(..) => array_value_to_string(column, row).ok(),
        _ => None,
    })
}

/// True where a column is the field's, or the one for its values of another type.
fn is_of(column: &str, field: &str) -> bool {
    let (start, rest) = column.split_at_checked(field.len()).unwrap_or_default();
    start.eq_ignore_ascii_case(field) && (rest.is_empty() || rest.starts_with("__"))
}

/// What a JSON document says that is a string, a whole number or a boolean.
fn of_document(text: &str) -> Option<String> {
    match serde_json::from_str(text).ok()? {
        Value::String(text) => Some(text),
        Value::Bool(is) => Some(is.to_string()),
        Value::Number(number) if !number.is_f64() => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_name_a_table_are_told_from_others() {
        let cases = [
            (r#""a b""#, Some("a b")),
            ("7", Some("7")),
            ("-12345678901234567890", None),
            ("7.5", None),
            ("true", Some("true")),
            ("null", None),
            (r#"{"a":1}"#, None),
            ("[1]", None),
        ];
        for (text, said) in cases {
            assert_eq!(of_document(text).as_deref(), said, "{text}");
        }
    }

    #[test]
    fn aliases_do_not_lead_to_the_field() {
        let text = r#"{"type":"record","name":"R","fields":[{"name":"land","type":"string","aliases":["country"]}]}"#;
        let written =
            RegisteredSchema { id: 1, format: SchemaFormat::Avro, text: text.to_owned(), references: Vec::new() };
        let schema = Schema::parse(&written).unwrap();
        for (by_name, aliases) in [(false, 1), (true, 0)] {
            let options = MappingOptions { by_name, ..MappingOptions::default() };
            let Columns::Each(fields) = schema.columns(crate::decode::MessagePath::FIRST, options).unwrap() else {
                panic!("no fields")
            };
            assert_eq!(fields[0].sources.len(), aliases, "{fields:?}");
        }
    }

    #[test]
    fn a_field_has_its_column_and_those_for_other_types() {
        for (column, is) in [("kind", true), ("Kind", true), ("kind__string", true), ("kind_of", false), ("kin", false)]
        {
            assert_eq!(is_of(column, "kind"), is, "{column}");
        }
    }
}
