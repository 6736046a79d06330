//! The statements of the SQL catalog on SQLite and Postgres: the JDBC catalog's two tables. What a metadata location
//! points at is not known here.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};

use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::runtime::clock::Clock;
use crate::runtime::crash;

/// One statement, or one transaction.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(30);
/// How long SQLite waits for another writer; less than the limit of a statement, so that its answer is seen.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// A connection, new or given back. A server that refuses is tried anew until then.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A commit takes one connection for milliseconds; loads of other tables go beside it.
const CONNECTIONS_MAX: u32 = 4;

const CREATE_TABLES: &str = "CREATE TABLE IF NOT EXISTS iceberg_tables (
    catalog_name VARCHAR(255) NOT NULL,
    table_namespace VARCHAR(255) NOT NULL,
    table_name VARCHAR(255) NOT NULL,
    metadata_location VARCHAR(1000),
    previous_metadata_location VARCHAR(1000),
    iceberg_type VARCHAR(5),
    PRIMARY KEY (catalog_name, table_namespace, table_name))";
const CREATE_PROPERTIES: &str = "CREATE TABLE IF NOT EXISTS iceberg_namespace_properties (
    catalog_name VARCHAR(255) NOT NULL,
    namespace VARCHAR(255) NOT NULL,
    property_key VARCHAR(255) NOT NULL,
    property_value VARCHAR(1000),
    PRIMARY KEY (catalog_name, namespace, property_key))";
/// Version 0 of the schema knew no views, hence no type; a missing type means a table.
const ADD_TYPE: &str = "ALTER TABLE iceberg_tables ADD COLUMN iceberg_type VARCHAR(5)";
const SQLITE_COLUMNS: &str = "SELECT 't' || name FROM pragma_table_info('iceberg_tables')
    UNION ALL SELECT 'p' || name FROM pragma_table_info('iceberg_namespace_properties')";
const POSTGRES_COLUMNS: &str = "SELECT CASE table_name WHEN 'iceberg_tables' THEN 't' ELSE 'p' END || column_name
    FROM information_schema.columns WHERE table_schema = ANY (current_schemas(false))
    AND table_name IN ('iceberg_tables', 'iceberg_namespace_properties')";
const SELECT_POINTER: &str = "SELECT metadata_location FROM iceberg_tables
    WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3
    AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)";
const SELECT_TABLES: &str = "SELECT table_namespace, table_name FROM iceberg_tables
    WHERE catalog_name = $1 AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)";
const INSERT_NAMESPACE: &str = "INSERT INTO iceberg_namespace_properties
    (catalog_name, namespace, property_key, property_value) VALUES ($1, $2, 'exists', 'true') ON CONFLICT DO NOTHING";
const SELECT_NAMESPACES: &str = "SELECT namespace, property_key, property_value FROM iceberg_namespace_properties
    WHERE catalog_name = $1";
/// The key of the row that every namespace has.
pub(super) const EXISTS: &str = "exists";
const INSERT_TABLE: &str = "INSERT INTO iceberg_tables
    (catalog_name, table_namespace, table_name, metadata_location, previous_metadata_location, iceberg_type)
    VALUES ($1, $2, $3, $4, NULL, 'TABLE') ON CONFLICT DO NOTHING";
const SWAP_POINTER: &str = "UPDATE iceberg_tables SET metadata_location = $5, previous_metadata_location = $4
    WHERE catalog_name = $1 AND table_namespace = $2 AND table_name = $3 AND metadata_location = $4
    AND (iceberg_type = 'TABLE' OR iceberg_type IS NULL)";
/// Frazil's own; made when first wanted, so that a catalog that nobody maintains stays as it is.
const CREATE_LEASES: &str = "CREATE TABLE IF NOT EXISTS frazil_leases (
    catalog_name VARCHAR(255) NOT NULL,
    lease_name VARCHAR(1000) NOT NULL,
    owner VARCHAR(255) NOT NULL,
    until_ms BIGINT NOT NULL,
    PRIMARY KEY (catalog_name, lease_name))";
const TAKE_LEASE: &str = "INSERT INTO frazil_leases (catalog_name, lease_name, owner, until_ms) VALUES ($1, $2, $3, $5)
    ON CONFLICT (catalog_name, lease_name) DO UPDATE SET owner = $3, until_ms = $5
    WHERE frazil_leases.owner = $3 OR frazil_leases.until_ms <= $4";
/// A replica that loses its network in a transaction would keep its rows locked until TCP gives up, hours later.
const RELEASE_LOCKS: &str = "SET idle_in_transaction_session_timeout = '60s'";

/// A pool of connections, made when first used.
#[derive(Debug)]
pub(super) enum Database {
    Sqlite { pool: SqlitePool, folder: Option<PathBuf> },
    Postgres(PgPool),
}

/// One compare-and-swap of a table's pointer.
#[derive(Debug)]
pub(super) struct Swap<'a> {
    pub(super) table: &'a TableName,
    pub(super) old: &'a str,
    pub(super) new: &'a str,
}

/// A lease to be taken.
#[derive(Debug)]
pub(super) struct Lease<'a> {
    pub(super) catalog: &'a str,
    pub(super) name: &'a str,
    pub(super) owner: &'a str,
    pub(super) now_ms: i64,
    pub(super) until_ms: i64,
}

/// What is known after a transaction of swaps.
#[derive(Debug)]
pub(super) enum Swapped {
    Done,
    /// Nothing is changed: this table's pointer was not the old one.
    Lost(TableName),
    /// The commit was sent and not answered.
    Unknown(Error),
}

/// The same code for both kinds of pool: the statements are written so that both understand them.
macro_rules! on {
    ($database:expr, $pool:ident => $body:expr) => {
        match $database {
            Database::Sqlite { pool: $pool, .. } => $body,
            Database::Postgres($pool) => $body,
        }
    };
}

impl Database {
    /// A database by its address; no connection is made.
    pub(super) fn open(uri: &str) -> Result<Self> {
        let wrong = |e: sqlx::Error| Error::invalid_config("`catalog.uri` is no address of a database").with_source(e);
        if uri.starts_with("sqlite:") {
            let options = SqliteConnectOptions::from_str(uri)
                .map_err(wrong)?
                .create_if_missing(true)
                .journal_mode(SqliteJournalMode::Wal)
                .synchronous(SqliteSynchronous::Full)
                .busy_timeout(BUSY_TIMEOUT);
            let folder = options.get_filename().parent().map(Path::to_owned).filter(|f| !f.as_os_str().is_empty());
            let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS_MAX).acquire_timeout(CONNECT_LIMIT);
            return Ok(Self::Sqlite { pool: pool.connect_lazy_with(options), folder });
        }
        if uri.starts_with("postgres:") || uri.starts_with("postgresql:") {
            let options = PgConnectOptions::from_str(uri).map_err(wrong)?.application_name("frazil");
            let pool = PgPoolOptions::new()
                .max_connections(CONNECTIONS_MAX)
                .acquire_timeout(CONNECT_LIMIT)
                .after_connect(|connection, _| {
                    Box::pin(async move { sqlx::query(RELEASE_LOCKS).execute(connection).await.map(drop) })
                });
            return Ok(Self::Postgres(pool.connect_lazy_with(options)));
        }
        Err(Error::invalid_config("`catalog.uri` begins with neither sqlite:// nor postgres://"))
    }

    /// Makes the tables where they lack. Looks first, since making needs rights that using does not.
    pub(super) async fn prepare(&self) -> sqlx::Result<()> {
        if let Self::Sqlite { folder: Some(folder), .. } = self {
            tokio::fs::create_dir_all(folder).await?;
        }
        let found = self.columns().await?;
        let has = |column: &str| found.iter().any(|found| found == column);
        if has("ticeberg_type") && has("pnamespace") {
            return Ok(());
        }
        let made = on!(self, pool => async {
            sqlx::query(CREATE_TABLES).execute(pool).await?;
            sqlx::query(CREATE_PROPERTIES).execute(pool).await?;
            if has("ttable_name") && !has("ticeberg_type") {
                sqlx::query(ADD_TYPE).execute(pool).await?;
            }
            Ok(())
        }.await);
        match made {
            // Another process may have been making them at the same time.
            Err(_) if self.columns().await?.iter().any(|column| column == "ticeberg_type") => Ok(()),
            made => made,
        }
    }

    /// Columns of both tables, with `t` or `p` in front.
    async fn columns(&self) -> sqlx::Result<Vec<String>> {
        match self {
            Self::Sqlite { pool, .. } => sqlx::query_scalar(SQLITE_COLUMNS).fetch_all(pool).await,
            Self::Postgres(pool) => sqlx::query_scalar(POSTGRES_COLUMNS).fetch_all(pool).await,
        }
    }

    /// The metadata location of a table.
    pub(super) async fn pointer(&self, catalog: &str, table: &TableName) -> sqlx::Result<Option<String>> {
        on!(self, pool => sqlx::query_scalar::<_, Option<String>>(SELECT_POINTER)
            .bind(catalog)
            .bind(table.namespace_text())
            .bind(&table.name)
            .fetch_optional(pool)
            .await
            .map(Option::flatten))
    }

    /// Namespace and name of all tables, in no order.
    pub(super) async fn tables(&self, catalog: &str) -> sqlx::Result<Vec<(String, String)>> {
        on!(self, pool => sqlx::query_as(SELECT_TABLES).bind(catalog).fetch_all(pool).await)
    }

    /// Namespace, key and value of all namespaces' properties, in no order.
    pub(super) async fn namespaces(&self, catalog: &str) -> sqlx::Result<Vec<(String, String, Option<String>)>> {
        on!(self, pool => sqlx::query_as(SELECT_NAMESPACES).bind(catalog).fetch_all(pool).await)
    }

    /// Adds a table and its namespace; false where there is a table of that name.
    pub(super) async fn insert(&self, catalog: &str, table: &TableName, location: &str) -> sqlx::Result<bool> {
        let namespace = table.namespace_text();
        on!(self, pool => {
            let mut transaction = pool.begin().await?;
            sqlx::query(INSERT_NAMESPACE).bind(catalog).bind(&namespace).execute(&mut *transaction).await?;
            let inserted = sqlx::query(INSERT_TABLE)
                .bind(catalog)
                .bind(&namespace)
                .bind(&table.name)
                .bind(location)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(inserted.rows_affected() == 1)
        })
    }

    /// Takes a lease; false where another owner has it.
    pub(super) async fn lease(&self, lease: &Lease<'_>) -> sqlx::Result<bool> {
        match self.take_lease(lease).await {
            // Mostly the table is missing; what else is wrong shows again.
            Err(sqlx::Error::Database(_)) => {
                on!(self, pool => sqlx::query(CREATE_LEASES).execute(pool).await.map(drop))?;
                self.take_lease(lease).await
            }
            taken => taken,
        }
    }

    async fn take_lease(&self, lease: &Lease<'_>) -> sqlx::Result<bool> {
        on!(self, pool => sqlx::query(TAKE_LEASE)
            .bind(lease.catalog)
            .bind(lease.name)
            .bind(lease.owner)
            .bind(lease.now_ms)
            .bind(lease.until_ms)
            .execute(pool)
            .await
            .map(|taken| taken.rows_affected() == 1))
    }

    /// Swaps all pointers or none. `swaps` are in order of their tables, so that two calls cannot lock each other out.
    ///
    /// # Errors
    /// Before the commit is sent: nothing is changed then.
    pub(super) async fn swap(&self, clock: &Clock, catalog: &str, swaps: &[Swap<'_>]) -> Result<Swapped> {
        on!(self, pool => {
            let begun = clock.timeout(STATEMENT_LIMIT, async {
                let mut transaction = pool.begin().await?;
                for swap in swaps {
                    let updated = sqlx::query(SWAP_POINTER)
                        .bind(catalog)
                        .bind(swap.table.namespace_text())
                        .bind(&swap.table.name)
                        .bind(swap.old)
                        .bind(swap.new)
                        .execute(&mut *transaction)
                        .await?;
                    if updated.rows_affected() != 1 {
                        transaction.rollback().await?;
                        return Ok(Err(swap.table.clone()));
                    }
                }
                Ok(Ok(transaction))
            });
            let transaction = match answered("commit to the catalog's database", begun.await)? {
                Ok(transaction) => transaction,
                Err(table) => return Ok(Swapped::Lost(table)),
            };
            crash::point(crash::REQUEST_SENT);
            let committed = clock.timeout(STATEMENT_LIMIT, transaction.commit()).await;
            match committed {
                Some(Ok(())) => Ok(Swapped::Done),
                // SQLite says so before it has changed anything.
                Some(Err(error)) if is_busy(&error) => Err(from_sql("commit to the catalog's database", error)),
                failed => answered("learn what became of a commit", failed).map_or_else(|e| Ok(Swapped::Unknown(e)), |()| Ok(Swapped::Done)),
            }
        })
    }
}

/// The answer to a statement that had a time limit.
pub(super) fn answered<T>(context: &str, result: Option<sqlx::Result<T>>) -> Result<T> {
    match result {
        Some(result) => result.map_err(|e| from_sql(context, e)),
        None => Err(Error::unavailable(format!("{context}: no answer in {} s", STATEMENT_LIMIT.as_secs()))),
    }
}

/// A database's error in our kinds: what may pass by itself is `Unavailable`.
fn from_sql(context: &str, error: sqlx::Error) -> Error {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code).unwrap_or_default();
    let error_of = match (&error, code.as_ref()) {
        (sqlx::Error::Configuration(_), _) => Error::invalid_config,
        // Postgres: wrong login, no privilege; SQLite: read-only, not authorised.
        (_, "28000" | "28P01" | "42501" | "8" | "23") => Error::denied,
        // SQLite: the file is damaged, or is no database.
        (_, "11" | "26") => Error::corrupt,
        _ => Error::unavailable,
    };
    error_of(context.to_owned()).with_source(error)
}

/// SQLite's busy, with its extended codes of recovery, snapshot and time-out.
pub(super) fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("5" | "261" | "517" | "773"))
}
