//! From the configuration to each adapter's own options; a table's specification is in `spec`.

use std::sync::Arc;

use super::views::TableViews;
use crate::config::resolve::{CatalogKind, Config, RegistryAuth, ServerConfig};
use crate::error::Result;
use crate::http;
use crate::kafka;
use crate::lake::catalog::Catalog;
use crate::lake::catalog::sql::{SqlCatalog, SqlOptions};
use crate::lake::maintain::plan::{Compaction, Retention};
use crate::lake::maintain::{MaintainOptions, Maintainer};
use crate::lake::storage::{StorageOptions, Stores};
use crate::lake::{IcebergLake, LakeOptions};
use crate::ports::{Registry, SqlLimits};
use crate::query::{self, SqlEngine};
use crate::registry;
use crate::rest_catalog;
use crate::runtime::clock::Clock;
use crate::runtime::compute::Compute;

/// Time limit of a request to the schema registry.
const REGISTRY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// The catalog, and the stores that its tables lie in. Nothing is connected yet.
///
/// # Errors
/// `InvalidConfig` where an option is not known.
pub fn open_catalog(config: &Config, clock: &Clock) -> Result<(Arc<dyn Catalog>, Stores)> {
    let properties = config.storage.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect();
    let stores = Stores::new(StorageOptions { properties })?;
    let CatalogKind::Sql { uri } = &config.catalog.kind;
    let options = SqlOptions {
        uri: uri.expose().to_owned(),
        name: config.catalog.name.clone(),
        warehouse: config.catalog.warehouse.clone(),
        stores: stores.clone(),
    };
    Ok((Arc::new(SqlCatalog::open(options, clock.clone())?), stores))
}

/// The tables of that catalog.
#[must_use]
pub fn lake(
    config: &Config,
    catalog: Arc<dyn Catalog>,
    stores: Stores,
    compute: &Compute,
    clock: &Clock,
) -> IcebergLake {
    let writer_bytes = shares(config.memory_budget, config.tables.len()).writer_bytes;
    let keep_snapshots = usize::try_from(config.maintenance.keep_snapshots).unwrap_or(usize::MAX);
    IcebergLake::new(catalog, stores, compute.clone(), clock.clone(), &LakeOptions { keep_snapshots, writer_bytes })
}

/// Upkeep of that lake's tables. Rows are decoded and encoded beside ingestion, on threads that give way to it.
///
/// # Errors
/// `Unavailable` where the system gives no more threads.
pub fn maintainer(config: &Config, lake: Arc<IcebergLake>) -> Result<Maintainer> {
    /// Files merged at once: bounds the entries of one commit and the footers in memory.
    const MAX_FILES: usize = 1000;
    let settings = &config.maintenance;
    let options = MaintainOptions {
        compaction: Compaction {
            target_bytes: settings.target_file_size,
            min_files: settings.min_files,
            max_files: MAX_FILES,
        },
        retention: Retention {
            keep_snapshots: usize::try_from(settings.keep_snapshots).unwrap_or(usize::MAX),
            keep_min: usize::try_from(settings.keep_min).unwrap_or(usize::MAX),
            keep_min_age: settings.keep_min_age,
            keep_for: settings.keep_for,
        },
        orphan_grace: settings.orphan_grace,
        memory_bytes: settings.memory,
    };
    Ok(Maintainer::new(lake, Compute::background(threads(config))?, options))
}

/// The shares of the memory budget.
#[derive(Debug, Clone, Copy)]
pub struct Shares {
    /// librdkafka's fetch queues, all tables together.
    pub fetch_bytes: usize,
    /// Raw batches of one table, until they are written.
    pub raw_bytes: usize,
    /// One table's open files.
    pub writer_bytes: usize,
    /// Decoded batches that wait for their commit to be seen, all tables together.
    pub tail_bytes: usize,
    /// What one query may use for sorting, grouping and joining.
    pub query_bytes: usize,
    /// Footers of data files that queries keep.
    pub footer_bytes: usize,
    /// Index entries of records that are not in an index yet, all tables together.
    pub hot_bytes: usize,
    /// Parts of indexes that searches keep.
    pub index_bytes: usize,
}

/// How a budget of `memory` bytes is shared among `tables`. The rest is what decoding, open files and uploads take:
/// they have bounds of their own.
#[must_use]
pub fn shares(memory: usize, tables: usize) -> Shares {
    const LEAST_RAW: usize = 1 << 20;
    const LEAST_WRITER: usize = 2 << 20;
    Shares {
        // librdkafka counts payloads and keeps some 400 bytes more of each message.
        fetch_bytes: memory / 32,
        raw_bytes: (memory / 8 / tables.max(1)).max(LEAST_RAW),
        writer_bytes: (memory / 6 / tables.max(1)).max(LEAST_WRITER),
        tail_bytes: memory / 4,
        query_bytes: memory / 2,
        footer_bytes: memory / 32,
        hot_bytes: memory / 8,
        index_bytes: memory / 4,
    }
}

/// SQL over the tables.
///
/// # Errors
/// `Unavailable` where the system gives no more threads.
pub fn sql(
    config: &Config,
    views: Arc<TableViews<IcebergLake>>,
    lake: Arc<IcebergLake>,
    clock: &Clock,
) -> Result<SqlEngine> {
    let options = query::Options {
        threads: threads(config),
        queries: config.sql.queries_at_once as usize,
        footer_bytes: shares(config.memory_budget, config.tables.len()).footer_bytes,
        namespace: config.namespace.clone(),
    };
    SqlEngine::new(options, views, lake, clock.clone())
}

/// SQL over what the catalog has, without a service, and what one query may use.
///
/// # Errors
/// As [`open_catalog`] and [`sql`].
pub fn offline_sql(config: &Config, clock: Clock) -> Result<(SqlEngine, SqlLimits)> {
    let (catalog, stores) = open_catalog(config, &clock)?;
    let lake = Arc::new(lake(config, catalog, stores, &Compute::inline(), &clock));
    let views = Arc::new(TableViews::new(Arc::clone(&lake), clock.clone()));
    Ok((sql(config, views, lake, &clock)?, sql_limits(config)))
}

/// What one query may use.
#[must_use]
pub fn sql_limits(config: &Config) -> SqlLimits {
    SqlLimits {
        rows: config.sql.max_rows,
        memory_bytes: shares(config.memory_budget, config.tables.len()).query_bytes,
        scanned_bytes: config.sql.max_scan,
        time: config.sql.timeout,
    }
}

/// Threads for work that keeps a core busy.
#[must_use]
pub fn threads(config: &Config) -> usize {
    config.compute_threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(2)
}

/// The Kafka client's options.
#[must_use]
pub fn kafka_options(config: &Config, tables: usize) -> kafka::Options {
    let properties =
        config.kafka.properties.iter().map(|(key, value)| (key.clone(), value.expose().to_owned())).collect();
    kafka::Options {
        properties,
        tables,
        read_budget_bytes: shares(config.memory_budget, tables).fetch_bytes,
        ..kafka::Options::new(config.kafka.bootstrap_servers.clone(), config.kafka.group_id.clone())
    }
}

/// The schema registry, where one is configured.
///
/// # Errors
/// `InvalidConfig` where a certificate cannot be read.
pub fn registry(config: &Config, clock: &Clock) -> Result<Option<Arc<dyn Registry>>> {
    let Some(settings) = &config.schema_registry else { return Ok(None) };
    let auth = match &settings.auth {
        RegistryAuth::None => registry::Auth::None,
        RegistryAuth::Basic { username, password } => {
            registry::Auth::Basic { username: username.clone(), password: password.expose().to_owned() }
        }
        RegistryAuth::Bearer(token) => registry::Auth::Bearer(token.expose().to_owned()),
    };
    let (cert_file, key_file) = settings.tls.identity.clone().unzip();
    let options = registry::Options {
        urls: settings.urls.clone(),
        auth,
        ca_file: settings.tls.ca.clone(),
        cert_file,
        key_file,
        timeout: REGISTRY_TIMEOUT,
    };
    Ok(Some(Arc::new(registry::RegistryClient::new(&options, clock.clone())?)))
}

/// The listener's options.
#[must_use]
pub fn http_options(server: &ServerConfig, stop_limit: std::time::Duration) -> http::Options {
    let tls = server.tls.as_ref().map(|tls| http::tls::TlsFiles { cert: tls.cert.clone(), key: tls.key.clone() });
    let tokens = server.tokens.iter().map(|token| http::auth::TokenOptions {
        name: token.name.clone(),
        hash: token.hash.to_string(),
        scopes: token.scopes.iter().map(ToString::to_string).collect(),
    });
    http::Options { listen: server.listen, tls, tokens: tokens.collect(), stop_limit }
}

/// The REST catalog's options.
#[must_use]
pub fn rest_catalog_options(config: &Config) -> rest_catalog::Options {
    rest_catalog::Options { warehouses: vec![config.catalog.name.clone(), config.catalog.warehouse.clone()] }
}

/// Where other engines find the REST catalog.
#[must_use]
pub fn catalog_url(server: &ServerConfig) -> String {
    let scheme = if server.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}{}", server.listen, rest_catalog::PATH)
}
