//! JSON into columns and back out of the arrays: by tables of cases, and by random schemas and values.

mod cursor;
mod infer;
mod mapping;
mod program;
mod random;
mod schema;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, Time64MicrosecondType,
    TimestampMicrosecondType, TimestampNanosecondType,
};
use serde_json::{Map, Value};

use super::mapping::{JSON_DOC, is_json, member_of};
use super::program::Program;
use crate::decode::Failure;
use crate::decode::columns::Column;
use crate::model::projection::ALL;
use crate::model::schema::{Field, Type};

/// The rescue column.
fn rescue_column() -> Field {
    Field { doc: Some(JSON_DOC.to_owned()), ..Field::optional("_rescued", Type::String) }
}

/// What becomes of each text: its row, as JSON, or why it is none. Columns that the program does not fill are null.
fn decode<T: AsRef<[u8]>>(program: &Program, table: &[Field], texts: &[T]) -> Vec<Result<Value, Failure>> {
    let mut columns: Vec<Column> = table.iter().map(|field| Column::new(&field.kind)).collect();
    let filled: Vec<usize> = program.filled().collect();
    let mut rows = 0;
    let mut read = |text: &T| match program.run(text.as_ref(), &mut columns) {
        Ok(()) => {
            let others = (0..table.len()).filter(|index| !filled.contains(index));
            others.for_each(|index| columns[index].push_null());
            rows += 1;
            columns.iter().for_each(|column| assert_eq!(column.len(), rows));
            Ok(rows - 1)
        }
        Err(failure) => {
            columns.iter_mut().for_each(|column| column.truncate(rows));
            Err(failure)
        }
    };
    let read: Vec<Result<usize, Failure>> = texts.iter().map(&mut read).collect();
    let arrays: Vec<ArrayRef> =
        columns.into_iter().zip(table).map(|(column, field)| column.finish(&field.kind.to_arrow()).unwrap()).collect();
    read.into_iter().map(|row| row.map(|row| object(table, &arrays, row))).collect()
}

fn object(fields: &[Field], arrays: &[ArrayRef], row: usize) -> Value {
    let members = fields
        .iter()
        .zip(arrays)
        .map(|(field, array)| (member_of(field, &ALL).unwrap().into_owned(), value(field, array, row)));
    Value::Object(members.collect())
}

fn value(field: &Field, array: &ArrayRef, row: usize) -> Value {
    if array.is_null(row) {
        assert!(!field.required, "null in required `{}`", field.name);
        return Value::Null;
    }
    match &field.kind {
        Type::Boolean => array.as_boolean().value(row).into(),
        Type::Int => array.as_primitive::<Int32Type>().value(row).into(),
        Type::Date => array.as_primitive::<Date32Type>().value(row).into(),
        Type::Long => array.as_primitive::<Int64Type>().value(row).into(),
        Type::Time => array.as_primitive::<Time64MicrosecondType>().value(row).into(),
        Type::Timestamp | Type::TimestampTz => array.as_primitive::<TimestampMicrosecondType>().value(row).into(),
        Type::TimestampNs | Type::TimestampTzNs => array.as_primitive::<TimestampNanosecondType>().value(row).into(),
        Type::Float => array.as_primitive::<Float32Type>().value(row).into(),
        Type::Double => array.as_primitive::<Float64Type>().value(row).into(),
        Type::Decimal(..) => array.as_primitive::<Decimal128Type>().value(row).to_string().into(),
        Type::String => {
            let text = array.as_string::<i32>().value(row);
            if !is_json(field) {
                return text.into();
            }
            serde_json::from_str(text).unwrap_or_else(|error| {
                assert!(error.to_string().starts_with("number out of range"), "{error}: {text}");
                text.into()
            })
        }
        Type::Binary => array.as_binary::<i32>().value(row).to_vec().into(),
        Type::Uuid | Type::Fixed(_) => array.as_fixed_size_binary().value(row).to_vec().into(),
        Type::List(element) => {
            let list = array.as_list::<i32>().value(row);
            (0..list.len()).map(|index| value(element, &list, index)).collect()
        }
        Type::Map(key, item) => {
            let entries = array.as_map().value(row);
            let entry = |index| {
                let key = value(key, entries.column(0), index);
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                (key, value(item, entries.column(1), index))
            };
            let members: Map<_, _> = (0..entries.len()).map(entry).collect();
            assert_eq!(members.len(), entries.len(), "a key comes twice");
            Value::Object(members)
        }
        Type::Struct(fields) => object(fields, array.as_struct().columns(), row),
    }
}

/// Columns in one line.
fn shown(fields: &[Field]) -> String {
    let one = |field: &Field| {
        let required = if field.required { " required" } else { "" };
        let doc = field.doc.as_ref().map(|doc| format!(" ({doc})")).unwrap_or_default();
        format!("{} {}{required}{doc}", field.name, field.kind)
    };
    fields.iter().map(one).collect::<Vec<_>>().join(", ")
}
