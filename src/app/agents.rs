//! The MCP server over the parts of this process, and alone over the catalog for `frazil mcp`.

use std::sync::Arc;

use super::connect;
use super::datasets::LiveDatasets;
use super::legible::RegistryReader;
use super::spec;
use super::views::TableViews;
use crate::config::Config;
use crate::error::Result;
use crate::kafka::Peeker;
use crate::lake::IcebergLake;
use crate::mcp::{self, Limits, Options, Ports};
use crate::ports::{Datasets, LakeReader, Registry, Search, Sql, SqlLimits};
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;
use crate::seam::Views;
use crate::telemetry::health::Health;

/// Names by which the machine itself is reached.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Said where nothing is known but what is committed.
const OFFLINE: &str = "read from the catalog, without the service: what is not committed yet is not in it";

/// The tables of that lake; none is filled here yet.
pub(super) fn datasets(
    lake: &Arc<IcebergLake>,
    views: &Arc<TableViews<IcebergLake>>,
    search: Option<Arc<dyn Search>>,
    health: &Health,
    clock: &Clock,
) -> Arc<LiveDatasets> {
    let (reader, views) = (Arc::clone(lake) as Arc<dyn LakeReader>, Arc::clone(views) as Arc<dyn Views>);
    Arc::new(LiveDatasets::new(reader, views, search, health.clone(), clock.clone()))
}

/// What the tools ask, of a service or of the catalog alone.
pub(super) fn ports(
    config: &Config,
    sql: Arc<dyn Sql>,
    lake: &Arc<IcebergLake>,
    datasets: Arc<dyn Datasets>,
    search: Option<Arc<dyn Search>>,
    registry: Option<Arc<dyn Registry>>,
    clock: &Clock,
) -> Ports {
    let kafka = connect::kafka_options(config, config.tables.len());
    Ports {
        sql,
        lake: Arc::clone(lake) as Arc<dyn LakeReader>,
        datasets,
        search,
        peek: Arc::new(Peeker::new(&kafka, clock.clone())),
        legible: Arc::new(RegistryReader::new(registry.clone())),
        registry,
    }
}

/// How it is served.
pub(super) fn options(config: &Config) -> Options {
    let (settings, listen) = (&config.mcp, config.server.listen.ip());
    let mut hosts: Vec<String> = LOOPBACK.map(|name| name.trim_matches(['[', ']']).to_owned()).into();
    if !listen.is_unspecified() {
        hosts.push(listen.to_string());
    }
    hosts.extend(settings.allowed_hosts.clone());
    let origin = |name: &str| ["http", "https"].map(|scheme| format!("{scheme}://{name}:*"));
    let mut origins: Vec<String> = LOOPBACK.iter().flat_map(|name| origin(name)).collect();
    origins.extend(settings.allowed_origins.clone());
    let all = connect::sql_limits(config);
    Options {
        allowed_hosts: hosts,
        allowed_origins: origins,
        audit_file: settings.audit_file.clone(),
        limits: Limits {
            calls_per_minute: settings.calls_per_minute,
            calls_at_once: settings.calls_at_once,
            time: settings.timeout,
        },
        sql: SqlLimits { scanned_bytes: settings.max_scan.min(all.scanned_bytes), ..all },
        note: None,
    }
}

/// Serves MCP on standard input and output, over what the catalog has and what is in Kafka, until they are closed.
///
/// # Errors
/// As [`super::open_catalog`]; `InvalidRequest` where what comes is not MCP.
pub async fn mcp_stdio(config: Config, clock: Clock) -> Result<()> {
    let (catalog, stores) = connect::open_catalog(&config, &clock)?;
    let lake = Arc::new(connect::lake(&config, catalog, stores, &Compute::inline(), &clock));
    let views = Arc::new(TableViews::new(Arc::clone(&lake), clock.clone()));
    let datasets = datasets(&lake, &views, None, &Health::new(), &clock);
    for table in &config.tables {
        datasets.name(Arc::new(spec::table_spec(&config, table)?));
    }
    let sql = Arc::new(connect::sql(&config, views, Arc::clone(&lake), &clock)?);
    let registry = connect::registry(&config, &clock)?;
    let ports = ports(&config, sql, &lake, datasets, None, registry, &clock);
    mcp::stdio(ports, Options { note: Some(OFFLINE.to_owned()), ..options(&config) }, clock).await
}
