//! The values that rows are partitioned and sorted by: a column found by its field id, inside structs too, and what a
//! transform makes of it. What becomes of the values is the writer's and maintenance's matter.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, make_array};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{TimestampMicrosecondType, TimestampNanosecondType};
use iceberg::spec::Transform;
use iceberg::transform::create_transform_function;

use super::storage::from_iceberg;
use crate::error::{Error, Result};
use crate::model::schema::{Field, TableSchema, Type};

/// How to come from a row to a value.
#[derive(Debug, Clone)]
pub(super) struct Derived {
    /// Positions from the top-level column down.
    path: Vec<usize>,
    transform: Transform,
}

impl Derived {
    /// What `transform` makes of the field `source_id`.
    ///
    /// # Errors
    /// `Corrupt` where the schema has no such field outside of lists and maps, or the transform is not known.
    pub(super) fn new(schema: &TableSchema, source_id: i32, transform: Transform) -> Result<Self> {
        let mut path = Vec::new();
        if !find(&schema.fields, source_id, &mut path) {
            return Err(Error::corrupt(format!(
                "the table is partitioned or sorted by field {source_id}, which is no column and in no struct"
            )));
        }
        if transform == Transform::Unknown {
            return Err(Error::corrupt("the table is partitioned or sorted by a transform that frazil does not know"));
        }
        Ok(Self { path, transform })
    }

    /// The values themselves of the top-level column at that position.
    #[cfg(test)]
    pub(super) fn column(at: usize) -> Self {
        Self { path: vec![at], transform: Transform::Identity }
    }

    /// One value for each row.
    ///
    /// # Errors
    /// `Bug` where `rows` are not of the schema; `Corrupt` where the transform does not take the column's type.
    pub(super) fn values(&self, rows: &RecordBatch) -> Result<ArrayRef> {
        let missing = || Error::bug("rows lack a column that partitions or sorts them");
        let (first, rest) = self.path.split_first().ok_or_else(missing)?;
        let mut values = Arc::clone(rows.columns().get(*first).ok_or_else(missing)?);
        for at in rest {
            let outer = values.as_struct_opt().ok_or_else(missing)?;
            let inner = outer.columns().get(*at).ok_or_else(missing)?;
            // Where the struct is null, so is what lies in it, whatever its slot holds.
            let nulls = NullBuffer::union(outer.nulls(), inner.nulls());
            let data = inner.to_data().into_builder().nulls(nulls).build();
            values = make_array(data.map_err(|e| Error::bug("take a field out of a struct").with_source(e))?);
        }
        if self.transform == Transform::Identity {
            return Ok(values);
        }
        let transform =
            create_transform_function(&self.transform).map_err(|e| from_iceberg("make partition transform", e))?;
        let values = if self.transform == Transform::Void { values } else { microseconds(values) };
        transform.transform(values).map_err(|e| from_iceberg("transform partition column", e))
    }
}

/// Nanoseconds as microseconds, which Iceberg hashes (spec, "Bucket Transform Details"), and the only ones of which
/// iceberg's own code knows the hours.
fn microseconds(values: ArrayRef) -> ArrayRef {
    match values.as_primitive_opt::<TimestampNanosecondType>() {
        Some(nanos) => Arc::new(nanos.unary::<_, TimestampMicrosecondType>(|nanos| nanos.div_euclid(1_000))),
        None => values,
    }
}

fn find(fields: &[Field], id: i32, path: &mut Vec<usize>) -> bool {
    for (at, field) in fields.iter().enumerate() {
        path.push(at);
        let is_here = field.id == id || matches!(&field.kind, Type::Struct(inner) if find(inner, id, path));
        if is_here {
            return true;
        }
        path.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int32Array, StructArray, TimestampMicrosecondArray, TimestampNanosecondArray};
    use arrow::datatypes::{Fields, Int32Type};

    use super::*;

    #[test]
    fn a_field_of_a_struct_is_null_where_the_struct_is() {
        let inner = Field { id: 3, ..Field::optional("x", Type::Int) };
        let of = |inner| Field { id: 2, ..Field::optional("s", Type::Struct(vec![inner])) };
        let plain = Field { id: 1, ..Field::optional("a", Type::Int) };
        let schema = TableSchema::of(vec![plain, of(inner.clone())]);
        let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(17), Some(4), None]));
        let nulls = NullBuffer::from(vec![true, false, true]);
        let point = StructArray::new(Fields::from(vec![inner.to_arrow()]), vec![Arc::clone(&values)], Some(nulls));
        let rows = RecordBatch::try_new(schema.to_arrow(), vec![values, Arc::new(point)]).unwrap();
        let check = |id, transform, expected: [Option<i32>; 3]| {
            let derived = Derived::new(&schema, id, transform).unwrap();
            let values = derived.values(&rows).unwrap();
            assert_eq!(values.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), expected, "{derived:?}");
        };
        check(1, Transform::Identity, [Some(17), Some(4), None]);
        check(3, Transform::Identity, [Some(17), None, None]);
        check(3, Transform::Truncate(10), [Some(10), None, None]);
        check(3, Transform::Void, [None, None, None]);
        assert!(Derived::new(&schema, 9, Transform::Identity).is_err());
    }

    #[test]
    fn nanoseconds_are_partitioned_as_microseconds_are() {
        let micros = [-86_400_000_001, -3_600_000_001, -1, 0, 1_767_225_600_123_456];
        let batch = |array: ArrayRef, kind| {
            let schema = TableSchema::of(vec![Field { id: 1, ..Field::optional("at", kind) }]);
            (RecordBatch::try_new(schema.to_arrow(), vec![array]).unwrap(), schema)
        };
        let coarse = Arc::new(TimestampMicrosecondArray::from(micros.to_vec()));
        // Each a nanosecond before the next microsecond.
        let fine = Arc::new(TimestampNanosecondArray::from(micros.map(|at| at * 1_000 + 999).to_vec()));
        let ((coarse, of_coarse), (fine, of_fine)) = (batch(coarse, Type::Timestamp), batch(fine, Type::TimestampNs));
        for transform in [Transform::Year, Transform::Month, Transform::Day, Transform::Hour, Transform::Bucket(16)] {
            let expected = Derived::new(&of_coarse, 1, transform).unwrap().values(&coarse).unwrap();
            let values = Derived::new(&of_fine, 1, transform).unwrap().values(&fine).unwrap();
            assert_eq!(&values, &expected, "{transform}");
        }
        let hours = Derived::new(&of_fine, 1, Transform::Hour).unwrap().values(&fine).unwrap();
        assert_eq!(hours.as_primitive::<Int32Type>().values(), &[-25, -2, -1, 0, 490_896]);
    }
}
