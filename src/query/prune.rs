//! What manifests say of files' columns, in the optimiser's terms: to leave files out, and to answer from counts alone.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, UInt64Array};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::stats::Precision;
use datafusion::common::{Column, ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::physical_expr::{PhysicalExpr, split_conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicate;

use crate::model::file::{ColumnStats, WrittenFile};
use crate::model::schema::{Field, TableSchema, Type};

/// The files that may have rows for which `predicate` holds.
pub(super) fn keep<'a>(
    mut files: Vec<&'a WrittenFile>,
    table: &TableSchema,
    schema: &SchemaRef,
    predicate: &Arc<dyn PhysicalExpr>,
) -> Result<Vec<&'a WrittenFile>> {
    for part in split_conjunction(predicate) {
        let pruning = PruningPredicate::try_new(Arc::clone(part), Arc::clone(schema))?;
        // What bounds cannot be asked leaves no file out: DataFusion makes `Utf8` of a `LIKE`'s prefix, whatever the
        // column is, and then cannot compare it with our views.
        let Ok(keep) = pruning.prune(&Bounds { files: &files, table }) else { continue };
        files = files.into_iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect();
    }
    Ok(files)
}

struct Bounds<'a> {
    files: &'a [&'a WrittenFile],
    table: &'a TableSchema,
}

impl Bounds<'_> {
    fn array(&self, column: &Column, bound: impl Fn(&ColumnStats) -> Option<&Vec<u8>>) -> Option<ArrayRef> {
        let field = self.table.field(&column.name)?;
        let null = ScalarValue::try_from(sql_type(field)?).ok()?;
        let value = |file: &&WrittenFile| {
            let bytes = file.columns.get(&field.id).and_then(&bound);
            bytes.and_then(|bytes| scalar(&field.kind, bytes)).unwrap_or_else(|| null.clone())
        };
        ScalarValue::iter_to_array(self.files.iter().map(value)).ok()
    }
}

impl PruningStatistics for Bounds<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.array(column, |stats| stats.lower.as_ref())
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.array(column, |stats| stats.upper.as_ref())
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let field = self.table.field(&column.name)?;
        // A file without counts of a column may have it all the same: writers may leave them out.
        let nulls = |file: &&WrittenFile| file.columns.get(&field.id).map(|stats| stats.nulls);
        Some(Arc::new(self.files.iter().map(nulls).collect::<UInt64Array>()))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::new(self.files.iter().map(|file| Some(file.rows)).collect::<UInt64Array>()))
    }

    fn contained(&self, _column: &Column, _values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}

/// A file's counts and bounds for the optimiser. Counts are exact; bounds of text and bytes are cut short.
pub(super) fn statistics(file: &WrittenFile, table: &TableSchema) -> Statistics {
    let column = |field: &Field| {
        let Some(stats) = file.columns.get(&field.id).filter(|_| !field.kind.to_arrow().is_nested()) else {
            return ColumnStatistics::new_unknown();
        };
        let whole = !matches!(field.kind, Type::String | Type::Binary | Type::Fixed(_) | Type::Uuid);
        let bound = |bytes: &Option<Vec<u8>>| {
            let value = bytes.as_ref().and_then(|bytes| scalar(&field.kind, bytes)).filter(|v| !is_least(v));
            value.map_or(Precision::Absent, |v| if whole { Precision::Exact(v) } else { Precision::Inexact(v) })
        };
        ColumnStatistics {
            null_count: Precision::Exact(usize::try_from(stats.nulls).unwrap_or(usize::MAX)),
            min_value: bound(&stats.lower),
            max_value: bound(&stats.upper),
            ..ColumnStatistics::new_unknown()
        }
    };
    Statistics {
        num_rows: Precision::Exact(usize::try_from(file.rows).unwrap_or(usize::MAX)),
        total_byte_size: Precision::Inexact(usize::try_from(file.size_bytes).unwrap_or(usize::MAX)),
        column_statistics: table.fields.iter().map(column).collect(),
    }
}

/// Whether it is the least of 64 bits. With the greatest as the other bound, DataFusion's count of the values between
/// them overflows, and with it its estimate for every filter.
fn is_least(bound: &ScalarValue) -> bool {
    matches!(
        bound,
        ScalarValue::Int64(Some(i64::MIN))
            | ScalarValue::TimestampMicrosecond(Some(i64::MIN), _)
            | ScalarValue::TimestampNanosecond(Some(i64::MIN), _)
    )
}

fn sql_type(field: &Field) -> Option<datafusion::arrow::datatypes::DataType> {
    let schema = super::columns::sql_schema(&TableSchema { schema_id: 0, ..TableSchema::of(vec![field.clone()]) });
    Some(schema.field(0).data_type().clone()).filter(|kind| !kind.is_nested())
}

/// A bound in Iceberg's single-value binary form as SQL's value. None for floating point: its bounds leave NaN out, and
/// SQL sorts it above everything. A column that was promoted has bounds of its old width.
fn scalar(kind: &Type, bytes: &[u8]) -> Option<ScalarValue> {
    let int = || Some(i32::from_le_bytes(bytes.try_into().ok()?));
    let long = || match bytes.len() {
        4 => int().map(i64::from),
        _ => Some(i64::from_le_bytes(bytes.try_into().ok()?)),
    };
    Some(match kind {
        Type::Boolean => ScalarValue::Boolean(Some(*bytes.first()? != 0)),
        Type::Int => ScalarValue::Int32(Some(int()?)),
        Type::Date => ScalarValue::Date32(Some(int()?)),
        Type::Long => ScalarValue::Int64(Some(long()?)),
        Type::Time => ScalarValue::Time64Microsecond(Some(long()?)),
        Type::Timestamp => ScalarValue::TimestampMicrosecond(Some(long()?), None),
        Type::TimestampTz => ScalarValue::TimestampMicrosecond(Some(long()?), Some(crate::model::schema::UTC.into())),
        Type::TimestampNs => ScalarValue::TimestampNanosecond(Some(long()?), None),
        Type::TimestampTzNs => ScalarValue::TimestampNanosecond(Some(long()?), Some(crate::model::schema::UTC.into())),
        Type::Decimal(precision, scale) => {
            let mut wide = [if bytes.first()? & 0x80 == 0 { 0 } else { 0xff }; 16];
            wide.get_mut(16_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
            ScalarValue::Decimal128(Some(i128::from_be_bytes(wide)), *precision, scale.cast_signed())
        }
        Type::String => ScalarValue::Utf8View(Some(std::str::from_utf8(bytes).ok()?.to_owned())),
        Type::Binary => ScalarValue::BinaryView(Some(bytes.to_vec())),
        Type::Fixed(size) => ScalarValue::FixedSizeBinary(size.cast_signed(), Some(bytes.to_vec())),
        Type::Uuid => ScalarValue::FixedSizeBinary(16, Some(bytes.to_vec())),
        Type::Float | Type::Double | Type::Struct(_) | Type::List(_) | Type::Map(..) => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use datafusion::logical_expr::{col, lit};
    use datafusion::prelude::SessionContext;

    use super::*;
    use crate::query::columns::sql_schema;

    fn table() -> TableSchema {
        let field = |id, name: &str, kind| Field { id, ..Field::optional(name, kind) };
        let fields = vec![
            field(1, "n", Type::Long),
            field(2, "s", Type::String),
            field(3, "price", Type::Decimal(9, 2)),
            field(4, "x", Type::Double),
        ];
        TableSchema { schema_id: 0, ..TableSchema::of(fields) }
    }

    fn file(path: &str, columns: &[(i32, &[u8], &[u8])]) -> WrittenFile {
        let stats = |(id, lower, upper): &(i32, &[u8], &[u8])| {
            let (lower, upper) = (Some(lower.to_vec()), Some(upper.to_vec()));
            (*id, ColumnStats { values: 10, lower, upper, ..ColumnStats::default() })
        };
        WrittenFile {
            path: path.to_owned(),
            size_bytes: 100,
            rows: 10,
            spec_id: 0,
            partition: Vec::new(),
            sort_order_id: None,
            split_offsets: Vec::new(),
            columns: columns.iter().map(stats).collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn bounds_never_span_all_of_64_bits() {
        let bounds = |lower: i64, upper: i64| {
            let written = file("all", &[(1, &lower.to_le_bytes(), &upper.to_le_bytes())]);
            let column = statistics(&written, &table()).column_statistics.swap_remove(0);
            (column.min_value.get_value().is_some(), column.max_value.get_value().is_some())
        };
        assert_eq!(bounds(i64::MIN, i64::MAX), (false, true));
        assert_eq!(bounds(i64::MIN + 1, i64::MAX), (true, true));
    }

    #[test]
    fn files_are_kept_where_rows_may_match() {
        let long = |n: i64| n.to_le_bytes();
        let small = file(
            "small",
            &[
                (1, &long(-5), &long(5)),
                (2, b"a", b"f"),
                (3, &[0x80], &[0x64]),
                (4, &1f64.to_le_bytes(), &2f64.to_le_bytes()),
            ],
        );
        // Written before the column was promoted to long, and without a price.
        let large = file("large", &[(1, &100i32.to_le_bytes(), &200i32.to_le_bytes()), (2, b"x", b"z")]);
        let check = |expr: datafusion::logical_expr::Expr, kept: &[&str]| {
            let (table, schema) = (table(), sql_schema(&table()));
            let frame = datafusion::common::DFSchema::try_from(schema.as_ref().clone()).unwrap();
            let text = expr.to_string();
            let predicate = SessionContext::new().create_physical_expr(expr, &frame).unwrap();
            let files = keep(vec![&small, &large], &table, &schema, &predicate).unwrap();
            assert_eq!(files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), kept, "{text}");
        };
        check(col("n").gt(lit(50i64)), &["large"]);
        check(col("n").lt(lit(-5i64)), &[]);
        check(col("n").eq(lit(5i64)), &["small"]);
        check(col("s").gt_eq(lit("g")), &["large"]);
        check(col("price").gt(lit(ScalarValue::Decimal128(Some(101), 9, 2))), &["large"]);
        check(col("price").lt(lit(ScalarValue::Decimal128(Some(-127), 9, 2))), &["small", "large"]);
        check(col("price").is_null(), &["large"]);
        check(col("n").is_null(), &[]);
        check(col("x").gt(lit(5.0)), &["small", "large"]);
        check(col("n").gt(lit(50i64)).or(col("s").eq(lit("b"))), &["small", "large"]);
        check(col("n").gt(lit(50i64)).and(col("s").like(lit("y%"))), &["large"]);
    }
}
