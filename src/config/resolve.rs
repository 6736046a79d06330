//! Settings as meant: defaults filled in, every check that needs no connection, errors with the dotted key. One table's
//! own checks are in `table`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use url::Url;

use super::choices::{CatalogType, LogFormat, Scope};
use super::fields::TokenHash;
use super::index::{IndexConfig, resolve_index};
use super::maintenance::{MaintenanceConfig, check_intervals, resolve_maintenance};
use super::mcp::{McpConfig, resolve_mcp};
use super::origin::TopicPattern;
use super::secret::Secret;
use super::settings::{CatalogSettings, KafkaSettings, RegistrySettings, ServerSettings, Settings};
use super::sql::{SqlConfig, resolve_sql};
use super::table::{SideFormat, TableConfig, resolve_table};
use super::units::{Number, Size, Span};
use crate::error::{Error, Result};

/// The configuration, checked. Two of them compare, so that a reload can tell what changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The Kafka cluster.
    pub kafka: KafkaConfig,
    /// The schema registry, where there is one.
    pub schema_registry: Option<RegistryConfig>,
    /// The catalog.
    pub catalog: CatalogConfig,
    /// Options of the object store.
    pub storage: BTreeMap<String, Secret>,
    /// The tables whose topics are named; may be empty, see [`Config::require_tables`].
    pub tables: Vec<TableConfig>,
    /// Those whose topics are found by a pattern; see [`Config::with_topics`].
    pub patterns: Vec<TopicPattern>,
    /// The namespace of names without one.
    pub namespace: String,
    /// How tables are kept healthy.
    pub maintenance: MaintenanceConfig,
    /// Search indexes.
    pub index: IndexConfig,
    /// The HTTP listener.
    pub server: ServerConfig,
    /// What a SQL query may use.
    pub sql: SqlConfig,
    /// The MCP server.
    pub mcp: McpConfig,
    /// Bound of memory in queues, writers and caches, bytes.
    pub memory_budget: usize,
    /// Logs.
    pub log: LogConfig,
    /// How long a stop may take.
    pub shutdown_timeout: Duration,
    /// Threads that decode and encode; `None`: one per core.
    pub compute_threads: Option<usize>,
}

/// The Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KafkaConfig {
    /// Brokers as `host:port`, separated by commas.
    pub bootstrap_servers: String,
    /// Consumer group.
    pub group_id: String,
    /// Further librdkafka properties; none that Frazil sets itself.
    pub properties: BTreeMap<String, Secret>,
}

/// The schema registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Its addresses, tried in turn; at least one.
    pub urls: Vec<Url>,
    /// How requests are authenticated.
    pub auth: RegistryAuth,
    /// TLS.
    pub tls: ClientTls,
}

/// How requests to the registry are authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RegistryAuth {
    /// Not at all.
    None,
    /// By user and password.
    Basic {
        /// User.
        username: String,
        /// Password; empty where none is written.
        password: Secret,
    },
    /// By bearer token.
    Bearer(Secret),
}

/// TLS towards a server; PEM files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientTls {
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// The catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogConfig {
    /// Its kind and address.
    pub kind: CatalogKind,
    /// Where tables lie: an absolute path, or a URL.
    pub warehouse: String,
    /// Its name inside the database.
    pub name: String,
}

/// A catalog's kind and address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CatalogKind {
    /// Embedded, in a database.
    Sql {
        /// `sqlite://…` or `postgres://…`; may hold a password.
        uri: Secret,
    },
}

/// The HTTP listener. Off loopback it has both a certificate and tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Its certificate; `None`: plain HTTP.
    pub tls: Option<ServerTls>,
    /// Who may call; empty: everybody on loopback.
    pub tokens: Vec<Token>,
}

/// The listener's certificate; PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Key.
    pub key: PathBuf,
}

/// A bearer token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name in logs.
    pub name: String,
    /// The hash of its text.
    pub hash: TokenHash,
    /// What it may do.
    pub scopes: BTreeSet<Scope>,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How they are written.
    pub format: LogFormat,
    /// A filter in tracing's language, checked.
    pub level: String,
}

impl Config {
    /// For commands that fill tables.
    ///
    /// # Errors
    /// `InvalidConfig` where no table is configured.
    pub fn require_tables(&self) -> Result<()> {
        if self.tables.is_empty() && self.patterns.is_empty() {
            Err(invalid("tables", "no table is named, so there is nothing to do; add one, as in `- topic: orders`"))
        } else {
            Ok(())
        }
    }
}

/// Below this nothing flows: librdkafka's own buffers and one open file take as much.
const MEMORY_BUDGET_MIN_BYTES: usize = 32 << 20;

/// librdkafka properties that Frazil sets itself, and what to write instead.
const OWNED_PROPERTIES: [(&str, &str); 10] = [
    ("bootstrap.servers", "write it as `kafka.bootstrap_servers`"),
    ("metadata.broker.list", "write it as `kafka.bootstrap_servers`"),
    ("group.id", "write it as `kafka.group_id`"),
    ("auto.offset.reset", "remove it and use a table's `start` and `on_gap`"),
    ("enable.auto.commit", "remove it: progress is committed with the rows"),
    ("auto.commit.enable", "remove it: progress is committed with the rows"),
    ("auto.commit.interval.ms", "remove it and use a table's `commit_interval`"),
    ("enable.auto.offset.store", "remove it: progress is committed with the rows"),
    ("enable.partition.eof", "remove it: frazil needs it on"),
    ("message.max.bytes", "remove it and use a table's `max_record_bytes`"),
];

/// An `InvalidConfig` error of the setting with this dotted key.
pub(super) fn invalid(key: &str, problem: &str) -> Error {
    Error::invalid_config(format!("setting `{key}`: {problem}"))
}

fn missing(key: &str, example: &str) -> Error {
    invalid(key, &format!("it is missing; write it, as in `{example}`"))
}

/// `written`, or `default` where it is not; refused where it is zero.
pub(super) fn positive<T: Default + PartialEq>(key: &str, written: Option<T>, default: T) -> Result<T> {
    match written {
        Some(value) if value == T::default() => {
            Err(invalid(key, "it must be above 0; raise it, or remove it for its default"))
        }
        Some(value) => Ok(value),
        None => Ok(default),
    }
}

/// What `written` means.
///
/// # Errors
/// `InvalidConfig` for the first mistake found.
pub(super) fn resolve(written: &Settings) -> Result<Config> {
    let kafka = resolve_kafka(&written.kafka.clone().unwrap_or_default())?;
    let schema_registry = written.schema_registry.as_ref().map(resolve_registry).transpose()?;
    let (tables, patterns) = resolve_tables(written)?;
    if schema_registry.is_none() {
        refuse_registry_formats(&tables)?;
    }
    let memory_budget = written.memory_budget.map_or(Ok(512 << 20), |Size(bytes)| usize::try_from(bytes));
    let memory_budget = memory_budget.map_err(|error| {
        invalid("memory_budget", "it exceeds this machine's addresses; lower it").with_source(error)
    })?;
    if memory_budget < MEMORY_BUDGET_MIN_BYTES {
        return Err(invalid("memory_budget", &format!("{memory_budget} bytes are too few; write 32MiB or more")));
    }
    let log = written.log.clone().unwrap_or_default();
    let level = log.level.unwrap_or_else(|| "info".to_owned());
    tracing_subscriber::EnvFilter::try_new(&level).map_err(|error| {
        invalid("log.level", &format!("`{level}` is no filter; write error, warn, info, debug or trace"))
            .with_source(error)
    })?;
    let threads =
        written.compute_threads.map(|Number(threads)| positive("compute_threads", Some(threads), 1)).transpose()?;
    let maintenance = resolve_maintenance(&written.maintenance.clone().unwrap_or_default())?;
    check_intervals(&maintenance, &tables)?;
    Ok(Config {
        kafka,
        schema_registry,
        catalog: resolve_catalog(&written.catalog.clone().unwrap_or_default())?,
        storage: present(written.storage.as_ref()),
        tables,
        patterns,
        namespace: written
            .defaults
            .as_ref()
            .and_then(|defaults| defaults.namespace.clone())
            .unwrap_or_else(|| "lake".to_owned()),
        maintenance,
        index: resolve_index(&written.index.clone().unwrap_or_default())?,
        server: resolve_server(&written.server.clone().unwrap_or_default())?,
        sql: resolve_sql(&written.sql.clone().unwrap_or_default())?,
        mcp: resolve_mcp(&written.mcp.clone().unwrap_or_default())?,
        memory_budget,
        log: LogConfig { format: log.format.unwrap_or(LogFormat::Text), level },
        shutdown_timeout: positive(
            "shutdown_timeout",
            written.shutdown_timeout.map(|Span(span)| span),
            Duration::from_secs(30),
        )?,
        compute_threads: threads.map(|threads| threads as usize),
    })
}

fn present(written: Option<&BTreeMap<String, Option<Secret>>>) -> BTreeMap<String, Secret> {
    written.into_iter().flatten().filter_map(|(name, value)| Some((name.clone(), value.clone()?))).collect()
}

fn resolve_kafka(written: &KafkaSettings) -> Result<KafkaConfig> {
    let bootstrap_servers = written
        .bootstrap_servers
        .clone()
        .ok_or_else(|| missing("kafka.bootstrap_servers", "bootstrap_servers: localhost:9092"))?;
    if bootstrap_servers.split(',').any(|server| server.trim().is_empty()) {
        return Err(invalid("kafka.bootstrap_servers", "a server is empty; write `host:port`, separated by commas"));
    }
    let properties = present(written.properties.as_ref());
    for (name, value) in &properties {
        let key = format!("kafka.properties.{name}");
        if let Some((_, instead)) = OWNED_PROPERTIES.iter().find(|(owned, _)| owned == name) {
            return Err(invalid(&key, &format!("frazil sets this property itself; {instead}")));
        }
        if name == "isolation.level" && !["read_committed", "read_uncommitted"].contains(&value.expose()) {
            return Err(invalid(&key, "it is neither `read_committed` nor `read_uncommitted`; write one of them"));
        }
    }
    let group_id = written.group_id.clone().unwrap_or_else(|| "frazil".to_owned());
    if group_id.is_empty() {
        return Err(invalid("kafka.group_id", "it is empty; write a name, or remove it for its default"));
    }
    Ok(KafkaConfig { bootstrap_servers, group_id, properties })
}

fn resolve_registry(written: &RegistrySettings) -> Result<RegistryConfig> {
    let key = "schema_registry.url";
    let text = written.url.as_deref().ok_or_else(|| missing(key, "url: http://localhost:8081"))?;
    let mut urls = Vec::new();
    for address in text.split(',') {
        let remedy = "write `http://host:port` or `https://host:port`";
        let url = Url::parse(address.trim())
            .map_err(|error| invalid(key, &format!("it is no address; {remedy}")).with_source(error))?;
        if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
            return Err(invalid(key, &format!("it is no HTTP address; {remedy}")));
        }
        // A password inside would show wherever the address does.
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid(
                key,
                "it holds a user or a password; write them as `username` and `password` beside it",
            ));
        }
        urls.push(url);
    }
    let auth = match (&written.username, &written.password, &written.bearer_token) {
        (None, None, None) => RegistryAuth::None,
        (Some(username), password, None) => RegistryAuth::Basic {
            username: username.clone(),
            password: password.clone().unwrap_or_else(|| Secret::from("")),
        },
        (None, None, Some(token)) => RegistryAuth::Bearer(token.clone()),
        (None, Some(_), None) => {
            return Err(invalid("schema_registry.username", "it is missing beside `password`; write both or none"));
        }
        (_, _, Some(_)) => {
            return Err(invalid(
                "schema_registry.bearer_token",
                "`username` or `password` is written too; keep one kind of authentication",
            ));
        }
    };
    let tls = written.tls.clone().unwrap_or_default();
    let identity = pair("schema_registry.tls", tls.cert.as_ref(), tls.key.as_ref())?;
    Ok(RegistryConfig { urls, auth, tls: ClientTls { ca: tls.ca.map(PathBuf::from), identity } })
}

/// A certificate and its key, or neither.
fn pair(at: &str, cert: Option<&String>, key: Option<&String>) -> Result<Option<(PathBuf, PathBuf)>> {
    match (cert, key) {
        (Some(cert), Some(key)) => Ok(Some((PathBuf::from(cert), PathBuf::from(key)))),
        (None, None) => Ok(None),
        (Some(_), None) => Err(invalid(&format!("{at}.key"), "it is missing beside `cert`; write both or none")),
        (None, Some(_)) => Err(invalid(&format!("{at}.cert"), "it is missing beside `key`; write both or none")),
    }
}

fn resolve_catalog(written: &CatalogSettings) -> Result<CatalogConfig> {
    let CatalogType::Sql = written.r#type.unwrap_or(CatalogType::Sql);
    let uri = written.uri.clone().ok_or_else(|| missing("catalog.uri", "uri: sqlite://frazil/catalog.db"))?;
    if !["sqlite:", "postgres://", "postgresql://"].iter().any(|scheme| uri.expose().starts_with(scheme)) {
        return Err(invalid(
            "catalog.uri",
            "it is no address of a database; write `sqlite://path` or `postgres://user:password@host/database`",
        ));
    }
    let warehouse =
        written.warehouse.as_deref().ok_or_else(|| missing("catalog.warehouse", "warehouse: frazil/warehouse"))?;
    let name = written.name.clone().unwrap_or_else(|| "frazil".to_owned());
    Ok(CatalogConfig { kind: CatalogKind::Sql { uri }, warehouse: resolve_warehouse(warehouse)?, name })
}

fn resolve_warehouse(written: &str) -> Result<String> {
    const SCHEMES: [&str; 9] = ["file", "s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl"];
    let key = "catalog.warehouse";
    if let Some((scheme, _)) = written.split_once("://") {
        return if SCHEMES.contains(&scheme) {
            Ok(written.trim_end_matches('/').to_owned())
        } else {
            Err(invalid(
                key,
                &format!("`{scheme}://` is no known store; write a path, or `{}://`", SCHEMES.join("://`, `")),
            ))
        };
    }
    let path = std::path::absolute(written)
        .map_err(|error| invalid(key, "it is no path; write a folder or a URL").with_source(error))?;
    path.into_os_string()
        .into_string()
        .map_err(|_| invalid(key, "the current directory is no UTF-8 text; write an absolute path"))
}

fn resolve_tables(written: &Settings) -> Result<(Vec<TableConfig>, Vec<TopicPattern>)> {
    let defaults = written.defaults.clone().unwrap_or_default();
    let (mut tables, mut patterns) = (Vec::new(), Vec::new());
    for (index, entry) in written.tables.iter().flatten().enumerate() {
        match TopicPattern::of(index, entry, &defaults)? {
            Some(pattern) => patterns.push(pattern),
            None => tables.push((format!("tables[{index}]"), resolve_table(index, entry, &defaults)?)),
        }
    }
    check_tables(&tables)?;
    Ok((tables.into_iter().map(|(_, table)| table).collect(), patterns))
}

/// Each table is filled by one entry, and each topic spread by one at most. Entries go by how they are called in errors.
pub(super) fn check_tables(tables: &[(String, TableConfig)]) -> Result<()> {
    let mut names = BTreeMap::new();
    let mut routed = BTreeMap::new();
    for (entry, table) in tables {
        let letters = table.dead_letter_topic.as_ref();
        let reader = letters.and_then(|topic| tables.iter().find(|(_, other)| other.topics.contains(topic)));
        if let (Some(topic), Some((reader, _))) = (letters, reader) {
            let text = format!("topic `{topic}` is read by `{reader}`; name a topic that no table reads");
            return Err(invalid(&format!("{entry}.dead_letter_topic"), &text));
        }
        for name in [table.table.clone(), table.table.dead_letters()] {
            if let Some(other) = names.insert(name.clone(), entry) {
                let text = format!(
                    "table `{name}` belongs to `{other}` already; name another, or list the topics together under `topics`"
                );
                return Err(invalid(&format!("{entry}.table"), &text));
            }
        }
        for topic in table.topics.iter().filter(|_| table.route.is_some()) {
            if let Some(other) = routed.insert(topic.clone(), entry) {
                let text = format!("topic `{topic}` is spread over tables by `{other}` already; keep one of them");
                return Err(invalid(&format!("{entry}.table"), &text));
            }
        }
    }
    Ok(())
}

fn refuse_registry_formats(tables: &[TableConfig]) -> Result<()> {
    for (index, table) in tables.iter().enumerate() {
        let setting = match (&table.key.side.format, &table.value.format) {
            (SideFormat::Registry, _) => "key",
            (_, SideFormat::Registry) => "value",
            _ => continue,
        };
        return Err(invalid(
            "schema_registry.url",
            &format!("it is missing, and `tables[{index}].{setting}` has format `registry`; write it"),
        ));
    }
    Ok(())
}

fn resolve_server(written: &ServerSettings) -> Result<ServerConfig> {
    let listen = written.listen.as_deref().unwrap_or("127.0.0.1:8181");
    let listen: SocketAddr = listen.parse().map_err(|_| {
        invalid(
            "server.listen",
            &format!("`{listen}` is no address and port; write them in numbers, as in `127.0.0.1:8181`"),
        )
    })?;
    let tls = written.tls.clone().unwrap_or_default();
    let tls = pair("server.tls", tls.cert.as_ref(), tls.key.as_ref())?.map(|(cert, key)| ServerTls { cert, key });
    let mut tokens: Vec<Token> = Vec::new();
    for (index, token) in written.auth.iter().flat_map(|auth| auth.tokens.iter().flatten()).enumerate() {
        let key = |name: &str| format!("server.auth.tokens[{index}].{name}");
        let name = token.name.clone().ok_or_else(|| missing(&key("name"), "name: grafana"))?;
        if tokens.iter().any(|other| other.name == name) {
            return Err(invalid(&key("name"), &format!("`{name}` is written twice; name one of them otherwise")));
        }
        let hash = token.hash.ok_or_else(|| missing(&key("hash"), "hash: sha256:…"))?;
        let scopes: BTreeSet<Scope> = token.scopes.iter().flatten().copied().collect();
        if scopes.is_empty() {
            return Err(missing(&key("scopes"), "scopes: [read]"));
        }
        tokens.push(Token { name, hash, scopes });
    }
    if !listen.ip().is_loopback() && (tls.is_none() || tokens.is_empty()) {
        return Err(invalid(
            "server.listen",
            &format!(
                "`{listen}` is open to the network and needs `server.tls` and `server.auth.tokens`; write both, or listen on 127.0.0.1"
            ),
        ));
    }
    Ok(ServerConfig { listen, tls, tokens })
}
