//! A table's filter: planned for the table's columns whenever they change, and refused where it can never be right.

use std::sync::Arc;

use super::resolve::{Known, Resolver};
use crate::decode::evolution::evolved;
use crate::decode::layout::Layout;
use crate::error::{Error, ErrorKind, Result};
use crate::model::schema::TableSchema;
use crate::ports::PlannedFilter;

/// The filter for a table's columns, where it has one; the error says why it cannot be asked of them.
pub(super) type Planned = Result<Option<Arc<dyn PlannedFilter>>, String>;

impl Resolver {
    /// The filter for `table`'s columns.
    pub(super) fn planned(&self, table: &TableSchema) -> Planned {
        let Some(filter) = &self.spec.filter else { return Ok(None) };
        filter.condition.plan(table).map(Some).map_err(|error| error.chain())
    }

    /// Refuses a filter that cannot be asked of `table`'s columns and those that are `known` to come; and where no
    /// others come before a schema changes, one that names others. So a slip rejects no record, and a table whose
    /// schema is still to be registered begins when it is.
    pub(super) fn check_filter(&self, table: &TableSchema, known: &Known, layout: &Layout) -> Result<()> {
        let Some(filter) = &self.spec.filter else { return Ok(()) };
        // Columns that no table can have are refused where one is made.
        let Ok(wanted) = known.columns(layout) else { return Ok(()) };
        let (table, is_complete) = match evolved(table, &wanted, layout) {
            Ok(changed) => (changed.unwrap_or_else(|| table.clone()), known.is_complete(layout)),
            // Records of the schema are rejected, whatever the filter says of others.
            Err(_) => (table.clone(), false),
        };
        let planned = filter.condition.plan(&table)?;
        let name = &self.spec.settings.table;
        match planned.missing() {
            [] => Ok(()),
            [missing, ..] if is_complete => {
                let text = format!("`where` of table `{name}` names `{missing}`, which neither table nor schema has");
                let remedy = "name one of its columns, or register a schema that has it";
                Err(Error::new(ErrorKind::InvalidConfig, format!("{text}; {remedy}")))
            }
            missing => {
                tracing::warn!(table = %name, ?missing, "`where` names columns that are not there yet: they are null");
                Ok(())
            }
        }
    }
}
