//! One query from its text to its rows: read-only, bounded in rows, bytes, memory and time, on threads of its own.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::execution::{FunctionRegistry, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::physical_plan::{ExecutionPlan, execute_stream};
use datafusion::prelude::SessionConfig;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use tokio::sync::{Semaphore, mpsc};
use url::Url;

use super::catalog::{CATALOG, QueryCatalog};
use super::exact::ExactLiterals;
use super::files::{Files, Footers};
use super::provider::STORE;
use super::travel;
use crate::error::{Error, ErrorKind, Result};
use crate::ports::{LakeReader, Sql, SqlAnswer, SqlLimits, SqlRequest, SqlUse};
use crate::runtime::clock::Clock;
use crate::runtime::lane::{Lane, Running};
use crate::seam::Views;

/// Batches that wait for a slow reader.
const BATCHES_WAITING_MAX: usize = 2;
/// How long a query waits for its turn.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
/// Names suggested for one that is not known.
const NEAREST: usize = 3;

/// How queries are run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Threads that run queries.
    pub threads: usize,
    /// Queries at once; others wait.
    pub queries: usize,
    /// Bytes of footers kept.
    pub footer_bytes: usize,
    /// The namespace of names without one.
    pub namespace: String,
}

/// Runs queries.
pub struct SqlEngine {
    options: Options,
    views: Arc<dyn Views>,
    lake: Arc<dyn LakeReader>,
    clock: Clock,
    lane: Arc<Lane>,
    footers: Footers,
    turns: Arc<Semaphore>,
    /// Functions, rules and settings that all queries share.
    template: SessionState,
}

impl SqlEngine {
    /// An engine over `views`, which reads files through `lake`.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no more threads.
    pub fn new(options: Options, views: Arc<dyn Views>, lake: Arc<dyn LakeReader>, clock: Clock) -> Result<Self> {
        let mut config = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(CATALOG, &options.namespace)
            .with_information_schema(true)
            .with_target_partitions(options.threads)
            .with_collect_statistics(true);
        config.options_mut().execution.parquet.pushdown_filters = true;
        let optimizer = &mut config.options_mut().optimizer;
        optimizer.repartition_file_min_size = 1 << 20;
        // DataFusion 54 answers wrongly by these. A join's filter drops the nulls that `IS NOT DISTINCT FROM`, `INTERSECT`
        // and `NOT IN` look for; that of `min` beside `max` drops rows before both have seen one; and groups under a
        // limit, which every query has here, are one per NaN.
        optimizer.enable_join_dynamic_filter_pushdown = false;
        optimizer.enable_aggregate_dynamic_filter_pushdown = false;
        optimizer.enable_topk_aggregation = false;
        let mut template = SessionStateBuilder::new().with_config(config).with_default_features().build();
        let registered = template.register_function_rewrite(Arc::new(ExactLiterals));
        registered.map_err(|e| Error::bug("register a rewrite").with_source(e))?;
        let lane = Arc::new(Lane::new("query", options.threads)?);
        let footers = Footers::new(options.footer_bytes);
        let turns = Arc::new(Semaphore::new(options.queries));
        Ok(Self { options, views, lake, clock, lane, footers, turns, template })
    }

    /// Everything that one query has of its own.
    async fn session(&self, request: &SqlRequest, used: &Arc<SqlUse>) -> Result<(SessionState, QueryCatalog)> {
        let lower = request.sql.to_lowercase();
        let listed = lower.contains("information_schema") || lower.contains("show");
        let names = if listed { self.lake.tables().await? } else { Vec::new() };
        let files = Files {
            lake: Arc::clone(&self.lake),
            footers: self.footers.clone(),
            used: Arc::clone(used),
            scanned_bytes_max: request.limits.scanned_bytes,
        };
        let catalog = QueryCatalog::new(Arc::clone(&self.views), files, request.consistency.clone(), names);
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(request.limits.memory_bytes)))
            .build_arc()
            .map_err(ours)?;
        let store = Url::parse(STORE).map_err(|e| Error::bug("parse the store's name").with_source(e))?;
        environment.register_object_store(&store, Arc::new(InMemory::new()));
        let state = SessionStateBuilder::new_from_existing(self.template.clone())
            .with_catalog_list(Arc::new(catalog.clone()))
            .with_runtime_env(environment)
            .build();
        Ok((state, catalog))
    }

    /// The error of a name that is not known, with those that are like it.
    async fn suggest(&self, error: Error) -> Error {
        let text = error.chain();
        let Some(name) = text.split("table '").nth(1).and_then(|rest| rest.split('\'').next()) else { return error };
        let name = name.trim_start_matches(CATALOG).trim_start_matches('.').to_lowercase();
        let Ok(tables) = self.lake.tables().await else { return error };
        let mut near: Vec<(f64, String)> = tables
            .iter()
            .map(ToString::to_string)
            .map(|known| (strsim::jaro_winkler(&name, &known.to_lowercase()), known))
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0));
        let near: Vec<String> = near.into_iter().take(NEAREST).map(|(_, known)| format!("`{known}`")).collect();
        let text = if near.is_empty() {
            format!("there is no table `{name}`: the catalog has no tables yet")
        } else {
            format!("there is no table `{name}`; there is {}", near.join(", "))
        };
        Error::new(ErrorKind::InvalidRequest, text)
    }
}

#[async_trait]
impl Sql for SqlEngine {
    async fn query(&self, request: SqlRequest) -> Result<SqlAnswer> {
        let begun = self.clock.elapsed();
        let sql = travel::fold(&request.sql)?;
        let turn = self.clock.timeout(TURN_PATIENCE, Arc::clone(&self.turns).acquire_owned()).await;
        let Some(Ok(turn)) = turn else {
            let text = format!("{} queries are running; try again when one has ended", self.options.queries);
            return Err(Error::new(ErrorKind::Unavailable, text));
        };
        let used = Arc::new(SqlUse::default());
        let (state, catalog) = self.session(&request, &used).await?;
        let limits = request.limits;
        let task = state.task_ctx();
        let planning = self.lane.run(async move { plan(&state, &sql, limits.rows).await });
        let Some(planned) = self.clock.timeout(limits.time, planning.result()).await else {
            return Err(late(limits.time, &used));
        };
        let planned = match planned?.map_err(ours) {
            Err(error) if error.kind() == ErrorKind::InvalidRequest => return Err(self.suggest(error).await),
            planned => planned?,
        };
        let schema = planned.schema();
        let (sender, receiver) = mpsc::channel(BATCHES_WAITING_MAX);
        let left = limits.time.saturating_sub(self.clock.elapsed().saturating_sub(begun));
        let (clock, counted) = (self.clock.clone(), Arc::clone(&used));
        let running = self.lane.run(async move {
            let _turn = turn;
            let rows = run(planned, task, limits, &counted, &sender);
            let end = clock.timeout(left, rows).await.unwrap_or_else(|| Err(late(limits.time, &counted)));
            if let Err(error) = end {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(SqlAnswer { schema, rows: rows(receiver, running), as_of: catalog.as_of(), used })
    }
}

/// A plan that reads, of one statement, which gives one row more than the limit at most.
async fn plan(state: &SessionState, sql: &str, rows_max: u64) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let plan = state.create_logical_plan(sql).await?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    reading.verify_plan(&plan)?;
    let most = usize::try_from(rows_max).unwrap_or(usize::MAX).saturating_add(1);
    let plan = match plan {
        LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::DescribeTable(_) => plan,
        plan => LogicalPlanBuilder::from(plan).limit(0, Some(most))?.build()?,
    };
    state.create_physical_plan(&plan).await
}

/// Sends the plan's rows until they end, the limit is met, or nobody takes them.
async fn run(
    plan: Arc<dyn ExecutionPlan>,
    task: Arc<TaskContext>,
    limits: SqlLimits,
    used: &SqlUse,
    sender: &mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let mut rows: SendableRecordBatchStream = execute_stream(plan, task).map_err(ours)?;
    let mut left = limits.rows;
    while let Some(batch) = rows.next().await {
        let mut batch = batch.map_err(ours)?;
        let count = batch.num_rows() as u64;
        if count > left {
            used.truncated.store(true, Ordering::Relaxed);
            batch = batch.slice(0, usize::try_from(left).unwrap_or(usize::MAX));
        }
        left -= batch.num_rows() as u64;
        if batch.num_rows() > 0 && sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
        if used.truncated.load(Ordering::Relaxed) {
            return Ok(());
        }
    }
    Ok(())
}

/// What comes through `receiver`; dropping it ends what sends.
fn rows(
    receiver: mpsc::Receiver<Result<RecordBatch>>,
    running: Running<()>,
) -> BoxStream<'static, Result<RecordBatch>> {
    futures::stream::unfold((receiver, running), |(mut receiver, running)| async move {
        let batch = receiver.recv().await?;
        Some((batch, (receiver, running)))
    })
    .boxed()
}

fn late(limit: Duration, used: &SqlUse) -> Error {
    let read = used.scanned_bytes.load(Ordering::Relaxed);
    let text = format!(
        "the query took longer than {limit:?} and was stopped after reading {read} bytes; filter by a partition or \
         another column, select fewer columns, or raise the limit"
    );
    Error::new(ErrorKind::InvalidRequest, text)
}

/// DataFusion's error as ours: one of ours inside it is what happened, most others are about the statement.
pub(super) fn ours(error: DataFusionError) -> Error {
    let mut inner: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(at) = inner {
        if let Some(own) = at.downcast_ref::<Error>() {
            return Error::new(own.kind(), own.chain());
        }
        inner = at.source();
    }
    let text = error.strip_backtrace();
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            let text =
                format!("the query needs more memory than it may use; group or sort less, or raise the limit: {text}");
            Error::new(ErrorKind::InvalidRequest, text)
        }
        DataFusionError::Internal(_) => Error::bug(text),
        DataFusionError::ObjectStore(_) | DataFusionError::IoError(_) => Error::unavailable(text),
        _ => Error::new(ErrorKind::InvalidRequest, text),
    }
}
