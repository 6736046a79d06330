//! Changing how a table is laid out: another partition spec, another sort order, and the properties that say so. Files
//! that are there stay as they are; maintenance rewrites them by their own spec.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use iceberg::{TableRequirement, TableUpdate};

use super::catalog::{Applied, TableChange};
use super::tables::{IcebergLake, partition_spec, sort_order};
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::PartitionField;
use crate::runtime::backoff::Backoff;

/// What is to change; `None` stays.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alteration {
    /// Partition fields of what is written from now on.
    pub partition_by: Option<Vec<PartitionField>>,
    /// Sort order of what is written from now on.
    pub sort_by: Option<Vec<String>>,
    /// Properties to set.
    pub properties: BTreeMap<String, String>,
}

impl IcebergLake {
    /// Changes a table's layout by one commit. Doing it again changes nothing.
    ///
    /// # Errors
    /// `InvalidRequest` where there is no such table, `InvalidConfig` where it has no such column or the transform does
    /// not fit it; `Unavailable` where the outcome may not be known: asking again is safe.
    pub async fn alter(&self, table: &TableName, alteration: &Alteration) -> Result<()> {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(5));
        loop {
            let loaded = self.committer.catalog.load(table).await?;
            let loaded = loaded.ok_or_else(|| Error::invalid_request(format!("there is no table `{table}`")))?;
            let metadata = &loaded.metadata;
            let schema = metadata.current_schema();
            let requirements = vec![
                TableRequirement::UuidMatch { uuid: metadata.uuid() },
                TableRequirement::CurrentSchemaIdMatch { current_schema_id: metadata.current_schema_id() },
                TableRequirement::DefaultSpecIdMatch { default_spec_id: metadata.default_partition_spec_id() },
                TableRequirement::DefaultSortOrderIdMatch { default_sort_order_id: metadata.default_sort_order_id() },
                TableRequirement::LastAssignedPartitionIdMatch {
                    last_assigned_partition_id: metadata.last_partition_id(),
                },
            ];
            let mut updates = Vec::new();
            if let Some(fields) = &alteration.partition_by {
                updates.push(TableUpdate::AddSpec { spec: partition_spec(table, fields, schema)? });
                updates.push(TableUpdate::SetDefaultSpec { spec_id: -1 });
            }
            if let Some(columns) = &alteration.sort_by {
                updates.push(TableUpdate::AddSortOrder { sort_order: sort_order(table, columns, schema)? });
                updates.push(TableUpdate::SetDefaultSortOrder { sort_order_id: -1 });
            }
            let properties: HashMap<String, String> = alteration.properties.clone().into_iter().collect();
            updates.push(TableUpdate::SetProperties { updates: properties });
            let change = TableChange { table: table.clone(), requirements, properties: Vec::new(), updates };
            match self.committer.catalog.commit(vec![change]).await? {
                Applied::Done(_) => return Ok(()),
                // Where an answer was lost it is done once more, which changes nothing.
                Applied::Conflict(_) | Applied::Unknown(_) => self.committer.clock.sleep(backoff.pause()).await,
            }
        }
    }
}
