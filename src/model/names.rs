//! A table's name mapping: the field ids of columns in data files that have none, since another tool brought them in.
//! Applies to Arrow schemas alone; files are read elsewhere.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use serde::Deserialize;

use super::schema::FIELD_ID_KEY;
use crate::error::{Error, Result};

/// The table property that holds it (spec, "Name Mapping Serialization").
pub const PROPERTY: &str = "schema.name-mapping.default";

/// Ids by name, at every depth.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NameMapping(Vec<Named>);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
struct Named {
    #[serde(rename = "field-id")]
    id: Option<i32>,
    names: Vec<String>,
    #[serde(default)]
    fields: Vec<Self>,
}

impl NameMapping {
    /// Reads the property's text.
    ///
    /// # Errors
    /// `Corrupt` where it is no mapping.
    pub fn parse(text: &str) -> Result<Self> {
        let read = |e| Error::corrupt(format!("read property `{PROPERTY}`")).with_source(e);
        serde_json::from_str(text).map_err(read)
    }

    /// The schema of a file with ids where it has none itself. What the mapping does not name stays without.
    #[must_use]
    pub fn identify(&self, file: &Schema) -> Schema {
        let fields: Vec<FieldRef> = file.fields().iter().map(|field| of(&self.0, field, field.name())).collect();
        Schema::new_with_metadata(fields, file.metadata().clone())
    }
}

/// True where a column of the file, or a field inside one, has an id.
#[must_use]
pub fn has_ids(file: &Schema) -> bool {
    file.fields().iter().any(|field| field.metadata().contains_key(FIELD_ID_KEY))
}

fn of(named: &[Named], field: &FieldRef, name: &str) -> FieldRef {
    let Some(known) = named.iter().find(|known| known.names.iter().any(|other| other == name)) else {
        return Arc::clone(field);
    };
    let inner = |field: &FieldRef, name: &str| of(&known.fields, field, name);
    let kind = match field.data_type() {
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(|field| inner(field, field.name())).collect()),
        DataType::List(element) => DataType::List(inner(element, "element")),
        DataType::Map(entries, sorted) => match entries.data_type() {
            DataType::Struct(pair) if pair.len() == 2 => {
                let pair = [inner(&pair[0], "key"), inner(&pair[1], "value")];
                let entries = entries.as_ref().clone().with_data_type(DataType::Struct(pair.into_iter().collect()));
                DataType::Map(Arc::new(entries), *sorted)
            }
            _ => field.data_type().clone(),
        },
        kind => kind.clone(),
    };
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    metadata.extend(known.id.map(|id| (FIELD_ID_KEY.to_owned(), id.to_string())));
    Arc::new(Field::new(field.name(), kind, field.is_nullable()).with_metadata(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::schema::{Field as Column, TableSchema, Type};

    #[test]
    fn ids_are_given_by_name_at_every_depth() {
        let field = |id, name: &str, kind| Column { id, ..Column::optional(name, kind) };
        let list = Type::List(Box::new(field(4, "element", Type::Struct(vec![field(5, "x", Type::Int)]))));
        let map = Type::Map(
            Box::new(Column { id: 7, ..Column::required("key", Type::String) }),
            Box::new(field(8, "value", Type::Int)),
        );
        let known = TableSchema::of(vec![field(1, "a", Type::Int), field(3, "l", list), field(6, "m", map)]);
        let mut text = serde_json::json!([
            {"field-id": 1, "names": ["a", "old"]},
            {"field-id": 3, "names": ["l"], "fields": [
                {"field-id": 4, "names": ["element"], "fields": [{"field-id": 5, "names": ["x"]}]}]},
            {"field-id": 6, "names": ["m"], "fields": [{"field-id": 7, "names": ["key"]}, {"field-id": 8, "names": ["value"]}]},
        ]);
        let mapping = NameMapping::parse(&text.to_string()).unwrap();
        let bare = bare(&known.to_arrow());
        assert!(!has_ids(&bare));
        assert_eq!(mapping.identify(&bare), *known.to_arrow());
        // By an older name; a column that nobody knows has no id.
        let old =
            Schema::new(vec![Field::new("old", DataType::Int32, true), Field::new("other", DataType::Int32, true)]);
        let found = mapping.identify(&old);
        let id = |at: usize| found.field(at).metadata().get(FIELD_ID_KEY).cloned();
        assert_eq!((id(0), id(1)), (Some("1".to_owned()), None));
        text[0]["names"] = serde_json::json!("a");
        assert!(NameMapping::parse(&text.to_string()).is_err());
    }

    /// The same without ids.
    fn bare(schema: &Schema) -> Schema {
        fn strip(field: &FieldRef) -> FieldRef {
            let kind = match field.data_type() {
                DataType::Struct(fields) => DataType::Struct(fields.iter().map(strip).collect()),
                DataType::List(element) => DataType::List(strip(element)),
                DataType::Map(entries, sorted) => DataType::Map(strip(entries), *sorted),
                kind => kind.clone(),
            };
            Arc::new(Field::new(field.name(), kind, field.is_nullable()))
        }
        Schema::new(schema.fields().iter().map(strip).collect::<Vec<_>>())
    }
}
