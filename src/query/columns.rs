//! Columns by field id: how SQL types a table's columns, how rows of an older schema become rows of a newer one, and
//! how expressions over the table's columns find them in files that named or typed them otherwise.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use datafusion::arrow::compute::{CastOptions, cast};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::common::nested_struct::cast_column;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr_adapter::{
    DefaultPhysicalExprAdapterFactory, PhysicalExprAdapter, PhysicalExprAdapterFactory,
};

use crate::model::schema::{FIELD_ID_KEY, TableSchema};

/// The columns as SQL sees them: text and bytes as views, which filters and groups compare without copying.
pub(super) fn sql_schema(schema: &TableSchema) -> SchemaRef {
    let arrow = schema.to_arrow();
    let fields = arrow.fields().iter().map(|field| match field.data_type() {
        DataType::Utf8 => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8View)),
        DataType::Binary | DataType::LargeBinary => {
            Arc::new(field.as_ref().clone().with_data_type(DataType::BinaryView))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<FieldRef>>()))
}

/// `rows` with the columns of `wanted`: found by field id, cast where the type was another, null where they are missing.
pub(super) fn conform(rows: &RecordBatch, wanted: &SchemaRef) -> Result<RecordBatch> {
    let held = rows.schema();
    let by_id: HashMap<&str, usize> =
        held.fields().iter().enumerate().filter_map(|(at, field)| Some((id(field)?, at))).collect();
    let columns = wanted.fields().iter().map(|field| -> Result<ArrayRef> {
        let Some(at) = id(field).and_then(|id| by_id.get(id)) else {
            return Ok(new_null_array(field.data_type(), rows.num_rows()));
        };
        let column = rows.column(*at);
        if column.data_type() == field.data_type() {
            Ok(Arc::clone(column))
        } else if field.data_type().is_nested() {
            cast_column(column, field.data_type(), &CastOptions::default())
        } else {
            Ok(cast(column, field.data_type())?)
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(wanted), columns.collect::<Result<Vec<_>>>()?, &options)?)
}

fn id(field: &Field) -> Option<&str> {
    field.metadata().get(FIELD_ID_KEY).map(String::as_str)
}

/// Adapts expressions to a file by the field ids that stand in both schemas.
#[derive(Debug)]
pub(super) struct ByFieldId;

impl PhysicalExprAdapterFactory for ByFieldId {
    fn create(&self, table: SchemaRef, file: SchemaRef) -> Result<Arc<dyn PhysicalExprAdapter>> {
        let names: HashMap<&str, &str> =
            table.fields().iter().filter_map(|field| Some((id(field)?, field.name().as_str()))).collect();
        // The file's columns under the names that the table has for them now. Those that it has no more get names that
        // no column can have, lest a column of the same name that came later be taken for them.
        let renamed = file.fields().iter().enumerate().map(|(at, field)| {
            let name = match id(field) {
                Some(id) => names.get(id).map_or_else(|| format!("\0{at}"), |name| (*name).to_owned()),
                None => field.name().clone(),
            };
            field.as_ref().clone().with_name(name)
        });
        let renamed = Arc::new(Schema::new(renamed.collect::<Vec<_>>()));
        let inner = DefaultPhysicalExprAdapterFactory.create(table, renamed)?;
        Ok(Arc::new(Renaming { inner, file }))
    }
}

#[derive(Debug)]
struct Renaming {
    inner: Arc<dyn PhysicalExprAdapter>,
    file: SchemaRef,
}

impl PhysicalExprAdapter for Renaming {
    fn rewrite(&self, expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>> {
        let expr = self.inner.rewrite(expr)?;
        // Pruning looks a column's statistics up by the name that the file has for it.
        expr.transform(|expr| {
            let Some(column) = expr.downcast_ref::<Column>() else { return Ok(Transformed::no(expr)) };
            let name = self.file.field(column.index()).name();
            if name == column.name() {
                return Ok(Transformed::no(expr));
            }
            Ok(Transformed::yes(Arc::new(Column::new(name, column.index())) as Arc<dyn PhysicalExpr>))
        })
        .data()
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{AsArray, Int32Array, StringArray};
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::common::ScalarValue;
    use datafusion::logical_expr::Operator;
    use datafusion::physical_expr::expressions::{BinaryExpr, Literal};

    use super::*;
    use crate::model::schema::{Field as TableField, Type};

    fn field(id: i32, name: &str, kind: Type) -> TableField {
        TableField { id, ..TableField::optional(name, kind) }
    }

    /// Column 1 was `a: int`, column 2 was dropped, `b` is another column now.
    fn before() -> RecordBatch {
        let schema = TableSchema { schema_id: 0, fields: vec![field(1, "a", Type::Int), field(2, "b", Type::String)] };
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["x", "y"]))];
        RecordBatch::try_new(schema.to_arrow(), columns).unwrap()
    }

    fn now() -> SchemaRef {
        let fields = vec![field(3, "b", Type::String), field(1, "amount", Type::Long)];
        sql_schema(&TableSchema { schema_id: 1, fields })
    }

    #[test]
    fn rows_of_an_older_schema_take_their_columns_by_id() {
        let rows = conform(&before(), &now()).unwrap();
        assert_eq!(rows.column(0).null_count(), 2, "the new `b` is not the old one");
        assert_eq!(rows.column(1).as_primitive::<Int64Type>().values(), &[1, 2]);
    }

    #[test]
    fn expressions_find_renamed_columns_in_old_files() {
        let adapter = ByFieldId.create(now(), before().schema()).unwrap();
        let amount: Arc<dyn PhysicalExpr> = Arc::new(Column::new("amount", 1));
        let one = Arc::new(Literal::new(ScalarValue::Int64(Some(1))));
        let above = adapter.rewrite(Arc::new(BinaryExpr::new(amount, Operator::Gt, one))).unwrap();
        let result = above.evaluate(&before()).unwrap().into_array(2).unwrap();
        assert_eq!(result.as_boolean().iter().collect::<Vec<_>>(), [Some(false), Some(true)]);
        assert!(above.to_string().contains("a@0"), "{above}");
        let b = adapter.rewrite(Arc::new(Column::new("b", 0))).unwrap();
        assert_eq!(b.evaluate(&before()).unwrap().into_array(2).unwrap().null_count(), 2);
    }
}
