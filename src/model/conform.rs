//! Rows of an older schema in a table's current one: columns found by field id at any depth, added ones null or what the
//! table says of older rows, promoted ones cast. Nothing here reads a file.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field as ArrowField, Fields, SchemaRef};
use arrow::error::ArrowError;

use super::constant;
use super::schema::{FIELD_ID_KEY, Field, Type};
use crate::error::{Error, Result};

/// `rows` as rows of `fields`, whose Arrow schema is `schema`.
///
/// # Errors
/// `Corrupt` where no column has a field id, a required one is missing, or a type does not become the table's.
pub fn conform(rows: &RecordBatch, fields: &[Field], schema: &SchemaRef) -> Result<RecordBatch> {
    let columns = children(rows.schema().fields(), rows.columns(), fields, rows.num_rows())?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options).map_err(|e| mismatch("a row", e))
}

fn children(have: &Fields, columns: &[ArrayRef], wanted: &[Field], rows: usize) -> Result<Vec<ArrayRef>> {
    // A file of another tool may have columns that the table never had, but not only such.
    let ids: Vec<Option<i32>> = have.iter().map(|field| id(field)).collect();
    if let Some(field) = have.first().filter(|_| ids.iter().all(Option::is_none)) {
        return Err(Error::corrupt(format!("column `{}` of a data file has no field id", field.name())));
    }
    wanted
        .iter()
        .map(|field| match ids.iter().position(|id| *id == Some(field.id)) {
            Some(at) => column(&columns[at], field),
            None if field.marks.initial_default.is_some() => {
                let default = field.marks.initial_default.as_deref().unwrap_or_default();
                let made = constant::array(&field.kind, default, rows);
                made.ok_or_else(|| Error::corrupt(format!("column `{}` has a default of another type", field.name)))
            }
            None if field.required => {
                Err(Error::corrupt(format!("column `{}` is required and missing in a data file", field.name)))
            }
            None => Ok(new_null_array(&field.kind.to_arrow(), rows)),
        })
        .collect()
}

fn id(field: &ArrowField) -> Option<i32> {
    field.metadata().get(FIELD_ID_KEY).and_then(|id| id.parse().ok())
}

/// One column as a column of `wanted`.
///
/// # Errors
/// As [`conform`].
pub fn column(have: &ArrayRef, wanted: &Field) -> Result<ArrayRef> {
    let name = wanted.name.as_str();
    let target = wanted.kind.to_arrow();
    let broken = |e: ArrowError| mismatch(name, e);
    match (&wanted.kind, &target, have.data_type()) {
        (Type::Struct(fields), DataType::Struct(target), DataType::Struct(given)) => {
            let have = have.as_struct();
            let columns = children(given, have.columns(), fields, have.len())?;
            let nulls = have.nulls().cloned();
            let made = if columns.is_empty() {
                StructArray::new_empty_fields(have.len(), nulls)
            } else {
                StructArray::try_new(target.clone(), columns, nulls).map_err(broken)?
            };
            Ok(Arc::new(made))
        }
        (Type::List(element), DataType::List(target), DataType::List(_)) => {
            let have = have.as_list::<i32>();
            let values = column(have.values(), element)?;
            let made = ListArray::try_new(Arc::clone(target), have.offsets().clone(), values, have.nulls().cloned());
            Ok(Arc::new(made.map_err(broken)?))
        }
        (Type::Map(key, value), DataType::Map(target, _), DataType::Map(..)) => {
            let DataType::Struct(entry) = target.data_type() else { return Err(Error::bug("a map without entries")) };
            let have = have.as_map();
            let columns = vec![column(have.keys(), key)?, column(have.values(), value)?];
            let entries = StructArray::try_new(entry.clone(), columns, None).map_err(broken)?;
            let nulls = have.nulls().cloned();
            let made = MapArray::try_new(Arc::clone(target), have.offsets().clone(), entries, nulls, false);
            Ok(Arc::new(made.map_err(broken)?))
        }
        (_, _, given) if *given == target => Ok(Arc::clone(have)),
        (_, _, given) if promotes(given, &target) => {
            // A value that does not fit is an error, never a null.
            cast_with_options(have, &target, &CastOptions { safe: false, ..CastOptions::default() }).map_err(broken)
        }
        (_, _, given) => Err(Error::corrupt(format!("column `{name}` is `{given}` in a data file, not `{target}`"))),
    }
}

/// Iceberg's promotions (spec, "Schema Evolution"), and Arrow's several types for one of Parquet's.
fn promotes(given: &DataType, target: &DataType) -> bool {
    use DataType::{
        Binary, Decimal128, FixedSizeBinary, Float32, Float64, Int32, Int64, LargeBinary, LargeUtf8, Timestamp, Utf8,
    };
    match (given, target) {
        (Int32, Int64) | (Float32, Float64) | (LargeUtf8, Utf8) | (LargeBinary, Binary) => true,
        (Decimal128(from, scale), Decimal128(to, same)) => from <= to && scale == same,
        (Timestamp(unit, from), Timestamp(same, to)) => unit == same && from.is_some() == to.is_some(),
        (Binary, FixedSizeBinary(_)) => false,
        _ => false,
    }
}

fn mismatch(name: &str, error: ArrowError) -> Error {
    Error::corrupt(format!("`{name}` of a data file does not fit the table's schema")).with_source(error)
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, Int64Array, StringArray};
    use arrow::datatypes::Schema;

    use super::*;
    use crate::model::schema::Marks;

    fn with_id(id: i32, field: Field) -> Field {
        Field { id, ..field }
    }

    fn batch(fields: &[Field], columns: Vec<ArrayRef>) -> RecordBatch {
        let schema = Schema::new(fields.iter().map(Field::to_arrow).collect::<Fields>());
        RecordBatch::try_new(Arc::new(schema), columns).unwrap()
    }

    fn schema(fields: &[Field]) -> SchemaRef {
        Arc::new(Schema::new(fields.iter().map(Field::to_arrow).collect::<Fields>()))
    }

    #[test]
    fn columns_are_found_by_id_added_as_null_and_promoted() {
        let inner = |kind| with_id(5, Field::optional("x", kind));
        let old = [
            with_id(1, Field::optional("a", Type::Int)),
            with_id(2, Field::optional("gone", Type::String)),
            with_id(3, Field::optional("s", Type::Struct(vec![inner(Type::Int)]))),
        ];
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let point = StructArray::try_new(
            Fields::from(vec![inner(Type::Int).to_arrow()]),
            vec![Arc::clone(&ints)],
            Some(vec![true, false].into()),
        );
        let rows = batch(&old, vec![ints, Arc::new(StringArray::from(vec!["p", "q"])), Arc::new(point.unwrap())]);
        let new = [
            with_id(4, Field::optional("added", Type::Date)),
            with_id(
                3,
                Field::optional(
                    "s",
                    Type::Struct(vec![with_id(6, Field::optional("y", Type::Long)), inner(Type::Long)]),
                ),
            ),
            with_id(1, Field::optional("renamed", Type::Long)),
        ];
        let conformed = conform(&rows, &new, &schema(&new)).unwrap();
        assert_eq!(conformed.column(0).null_count(), 2);
        let point = conformed.column(1).as_struct();
        assert_eq!((point.is_null(0), point.is_null(1)), (false, true));
        assert_eq!(point.column(0).null_count(), 2);
        assert_eq!(conformed.column(2).as_ref(), &Int64Array::from(vec![Some(1), None]));
    }

    #[test]
    fn rows_of_before_have_the_initial_default() {
        let with = |id, field: Field, bytes: &[u8]| {
            let marks = Marks { initial_default: Some(bytes.to_vec()), ..Marks::default() };
            Field { id, marks, ..field }
        };
        let old = [
            with_id(1, Field::optional("a", Type::Int)),
            with_id(3, Field::optional("s", Type::Struct(vec![with_id(5, Field::optional("x", Type::Int))]))),
        ];
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
        let fields = Fields::from(vec![with_id(5, Field::optional("x", Type::Int)).to_arrow()]);
        let point = StructArray::try_new(fields, vec![Arc::clone(&ints)], None).unwrap();
        let rows = batch(&old, vec![ints, Arc::new(point)]);
        let inner = vec![with(6, Field::optional("y", Type::String), b"y")];
        let new = [
            with(4, Field::required("added", Type::Long), &7_i64.to_le_bytes()),
            with_id(3, Field::optional("s", Type::Struct(inner))),
        ];
        let conformed = conform(&rows, &new, &schema(&new)).unwrap();
        assert_eq!(conformed.column(0).as_ref(), &Int64Array::from(vec![7, 7]));
        let point = conformed.column(1).as_struct();
        assert_eq!(point.column(0).as_ref(), &StringArray::from(vec!["y", "y"]));
        let other = [with(4, Field::required("added", Type::Long), b"no")];
        assert!(conform(&rows, &other, &schema(&other)).unwrap_err().to_string().contains("default of another type"));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let old = [with_id(1, Field::optional("a", Type::Long))];
        let rows = batch(&old, vec![Arc::new(Int64Array::from(vec![1]))]);
        for new in [
            with_id(1, Field::optional("a", Type::Int)),
            with_id(1, Field::optional("a", Type::String)),
            with_id(2, Field::required("b", Type::Long)),
        ] {
            let new = [new];
            let error = conform(&rows, &new, &schema(&new)).unwrap_err();
            assert_eq!(error.kind(), crate::error::ErrorKind::Corrupt, "{error:?}");
        }
        let bare = Arc::new(Schema::new(vec![ArrowField::new("a", DataType::Int64, true)]));
        let bare = RecordBatch::try_new(bare, rows.columns().to_vec()).unwrap();
        assert!(conform(&bare, &old, &schema(&old)).unwrap_err().to_string().contains("no field id"));
    }
}
