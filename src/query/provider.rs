//! A table as DataFusion scans it: the files of its version, pruned, and the tail behind them, in one plan.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{DFSchema, DataFusionError, Result, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use super::columns::{ByFieldId, Defaults, conform, defaults, sql_schema};
use super::files::{FilePath, Files};
use super::prune;
use crate::model::file::WrittenFile;
use crate::model::names::{self, NameMapping};
use crate::ports::TableState;
use crate::seam::View;

/// The name under which scans open files; [`Files`] reads them, whatever it says.
pub(super) const STORE: &str = "frazil://tables";

/// One table in one query.
#[derive(Debug)]
pub(super) struct SeamTable {
    version: Arc<TableState>,
    schema: SchemaRef,
    defaults: Defaults,
    manifests: Vec<Arc<Vec<WrittenFile>>>,
    tail: Vec<RecordBatch>,
    files: Files,
}

impl SeamTable {
    /// The table of `view`, whose files are looked up and whose tail is brought into its schema.
    pub(super) async fn new(view: View, files: Files) -> Result<Self> {
        let manifests =
            files.lake.files(&view.version).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let schema = sql_schema(&view.version.schema);
        let tail = view.tail.iter().filter(|batch| batch.rows.num_rows() > 0);
        let defaults = defaults(&view.version.schema, &schema)?;
        let tail = tail.map(|batch| conform(&batch.rows, &view.version.schema, &schema, &defaults));
        let tail = tail.collect::<Result<Vec<_>>>()?;
        Ok(Self { version: view.version, schema, defaults, manifests, tail, files })
    }

    fn scan_files(
        &self,
        predicate: Option<Arc<dyn PhysicalExpr>>,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let table = &self.version.schema;
        let mut files: Vec<&WrittenFile> = self.manifests.iter().flat_map(|files| files.iter()).collect();
        if let Some(predicate) = &predicate {
            files = prune::keep(files, table, &self.schema, predicate)?;
        }
        let partitioned = files.into_iter().map(|file| {
            let path: Arc<str> = file.path.as_str().into();
            PartitionedFile::new(file.path.as_str(), file.size_bytes)
                .with_statistics(Arc::new(prune::statistics(file, table)))
                .with_extension(FilePath(path))
        });
        let files: Vec<PartitionedFile> = partitioned.collect();
        let known = files.iter().filter_map(|file| file.statistics.as_deref());
        let statistics =
            Statistics::try_merge_iter(known, &self.schema).unwrap_or_else(|_| Statistics::new_unknown(&self.schema));
        let mut source =
            ParquetSource::new(Arc::clone(&self.schema)).with_parquet_file_reader_factory(Arc::new(self.files.clone()));
        if let Some(predicate) = predicate {
            source = source.with_predicate(predicate);
        }
        let names = self.version.properties.get(names::PROPERTY).map(|text| NameMapping::parse(text)).transpose();
        let names = names.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, Arc::new(source))
            .with_file_group(FileGroup::new(files))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(ByFieldId {
                table: Arc::clone(table),
                names,
                defaults: self.defaults.clone(),
            })))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

#[async_trait]
impl TableProvider for SeamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let frame = DFSchema::try_from(self.schema.as_ref().clone())?;
        let filter = conjunction(filters.to_vec());
        let predicate = filter.map(|filter| state.create_physical_expr(filter, &frame)).transpose()?;
        let mut inputs = Vec::with_capacity(2);
        if self.manifests.iter().any(|files| !files.is_empty()) {
            inputs.push(self.scan_files(predicate, projection, limit)?);
        }
        if !self.tail.is_empty() || inputs.is_empty() {
            // As many parts as there are threads: a long tail is scanned side by side.
            let parts = state.config().target_partitions().clamp(1, self.tail.len().max(1));
            let mut tail = vec![Vec::new(); parts];
            self.tail.iter().enumerate().for_each(|(at, rows)| tail[at % parts].push(rows.clone()));
            let source = MemorySourceConfig::try_new(&tail, Arc::clone(&self.schema), projection.cloned())?;
            inputs.push(DataSourceExec::from_data_source(source.with_limit(limit)));
        }
        match inputs.len() {
            1 => Ok(inputs.remove(0)),
            _ => UnionExec::try_new(inputs),
        }
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }
}
