//! What `frazil demo` embeds: a broker, a schema registry and generated records, all on loopback and in memory, and
//! the configuration with which the ordinary service runs against them. The service itself does not start here.

mod avro;
mod broker;
mod commands;
mod generate;
mod produce;
mod random;
mod registry;
mod text;

use std::path::{Path, PathBuf};

use tokio::net::TcpListener;
use url::Url;

use crate::error::{Error, Result};
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{self, Task, TaskKind};

use broker::Broker;
pub use commands::{Command, commands};
pub use generate::{Generator, Record, TOPICS, Topic};
use produce::Pace;
pub use produce::{Committed, Produced};

/// The catalog's name: the one under which other engines look for the tables in its database.
const CATALOG_NAME: &str = "frazil";
const CATALOG_FILE: &str = "catalog.db";
const WAREHOUSE_DIR: &str = "warehouse";
const INDEX_DIR: &str = "index";
/// The configuration that the demo runs with, for commands beside it.
pub const CONFIG_FILE: &str = "frazil.yaml";
const AUDIT_FILE: &str = "audit.jsonl";
/// Between two records of a fixed amount, which comes as fast as it can and so needs a time of its own.
const ONCE_STEP_US: i64 = 1_000;

/// What a demo is asked for.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Where catalog and warehouse lie; made if missing.
    pub dir: PathBuf,
    /// Records per second over all topics; at least 1.
    pub rate: u32,
    /// That many records as fast as the tables take them, instead of `rate` without end.
    pub once: Option<u64>,
    /// Decides all records.
    pub seed: u64,
}

/// Where the embedded services are.
#[derive(Debug, Clone)]
pub struct DemoServices {
    /// `host:port` of the broker.
    pub bootstrap_servers: String,
    /// Base address of the registry.
    pub registry_url: Url,
    /// All topics.
    pub topics: &'static [Topic],
}

/// The embedded services; they end when this is dropped, the registry with the shutdown.
pub struct Demo {
    options: DemoOptions,
    services: DemoServices,
    broker: Broker,
    schema_ids: [u32; 4],
    clock: Clock,
    shutdown: Shutdown,
    registry: Task,
}

impl Demo {
    /// Starts broker and registry, with all topics and schemas in them; nothing is produced yet. The shutdown is
    /// theirs alone: request it after the service that reads from them has stopped.
    ///
    /// # Errors
    /// `InvalidConfig` where the directory cannot be used, `Unavailable` where a service cannot start.
    pub async fn start(options: DemoOptions, clock: Clock, shutdown: Shutdown) -> Result<Self> {
        let dir = make_dir(&options.dir).await?;
        let options = DemoOptions { dir, rate: options.rate.max(1), ..options };
        let broker = Broker::start(&TOPICS)?;
        let schemas = registry::Schemas::default();
        let mut schema_ids = [0; 4];
        for (id, topic) in schema_ids.iter_mut().zip(&TOPICS) {
            let registered = schemas.register_avro(&topic.subject(), topic.schema);
            *id =
                registered.map_err(|e| Error::bug(format!("register the schema of topic `{}`: {e:?}", topic.name)))?;
        }
        let failed = |e: std::io::Error| Error::unavailable("start the embedded schema registry").with_source(e);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let registry_url = Url::parse(&format!("http://{address}"))
            .map_err(|e| Error::bug("the registry's address is no address").with_source(e))?;
        let (router, stop) = (schemas.router(), shutdown.clone());
        let registry = task::spawn(TaskKind::Server, "demo schema registry", async move {
            let server = axum::serve(listener, router).with_graceful_shutdown(async move { stop.requested().await });
            server.await.map_err(|e| Error::unavailable("serve the embedded schema registry").with_source(e))
        });
        let services = DemoServices { bootstrap_servers: broker.bootstrap_servers()?, registry_url, topics: &TOPICS };
        Ok(Self { options, services, broker, schema_ids, clock, shutdown, registry })
    }

    /// Where the services are.
    #[must_use]
    pub fn services(&self) -> &DemoServices {
        &self.services
    }

    /// The demo's directory, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The configuration that makes a table of each topic.
    #[must_use]
    pub fn config_yaml(&self) -> String {
        // A JSON string is a YAML string.
        let text = |text: String| serde_json::json!(text).to_string();
        let tables = TOPICS.map(|Topic { name, table, key_format, index, .. }| {
            let index = index.map(|index| format!("    index: {index}\n")).unwrap_or_default();
            format!("  - topic: {name}\n    table: {table}\n    key: {{format: {key_format}}}\n{index}")
        });
        format!(
            "kafka:\n  bootstrap_servers: {}\n  group_id: frazil-demo\n\
             schema_registry:\n  url: {}\n\
             catalog:\n  type: sql\n  uri: {}\n  warehouse: {}\n\
             defaults:\n  commit_interval: 1s\n\
             \x20 # Each run makes its topics anew, and goes on in the tables of the run before.\n\
             \x20 on_topic_change: new_incarnation\n\
             index:\n  uri: {}\n\
             mcp:\n  audit_file: {}\n\
             tables:\n{}",
            text(self.services.bootstrap_servers.clone()),
            text(self.services.registry_url.to_string()),
            text(format!("sqlite://{}", self.options.dir.join(CATALOG_FILE).display())),
            text(self.options.dir.join(WAREHOUSE_DIR).display().to_string()),
            text(self.options.dir.join(INDEX_DIR).display().to_string()),
            text(self.options.dir.join(AUDIT_FILE).display().to_string()),
            tables.concat(),
        )
    }

    /// Writes that configuration into the demo's directory, so that `frazil sql` and the like find the service.
    ///
    /// # Errors
    /// `InvalidConfig` where it cannot be written.
    pub async fn write_config(&self) -> Result<PathBuf> {
        let path = self.options.dir.join(CONFIG_FILE);
        let failed = |e| Error::invalid_config(format!("write `{}`", path.display())).with_source(e);
        tokio::fs::write(&path, self.config_yaml()).await.map_err(failed)?;
        Ok(path)
    }

    /// Produces until the amount is reached or `stop` is requested, never further ahead of `committed` than the
    /// broker keeps. Answers the end of each partition once all records are in the log.
    ///
    /// # Errors
    /// `Unavailable` where the broker does not take a record.
    pub async fn produce(&self, committed: Committed, stop: &Shutdown) -> Result<Produced> {
        let DemoOptions { rate, once, seed, .. } = self.options;
        let step_us = if once.is_some() { ONCE_STEP_US } else { 1_000_000 / i64::from(rate) };
        let generator = Generator::new(seed, self.schema_ids, self.clock.now_ms(), step_us);
        let pace = Pace { rate: once.is_none().then_some(rate), count: once };
        produce::produce(&self.broker, generator, pace, committed, &self.clock, stop).await
    }

    /// Stops the registry and waits for it, then the broker.
    ///
    /// # Errors
    /// The registry's own.
    pub async fn stop(mut self) -> Result<()> {
        self.shutdown.request();
        self.registry.join().await
    }
}

/// Makes the directory and answers its absolute path.
async fn make_dir(dir: &Path) -> Result<PathBuf> {
    let failed = |e: std::io::Error| {
        Error::invalid_config(format!("use directory `{}` for the demo", dir.display())).with_source(e)
    };
    tokio::fs::create_dir_all(dir.join(WAREHOUSE_DIR)).await.map_err(failed)?;
    tokio::fs::canonicalize(dir).await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn a_demo_starts_produces_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let options = DemoOptions { dir: dir.path().join("demo"), rate: 0, once: Some(1_000), seed: 1 };
        let demo = Demo::start(options, Clock::system(), Shutdown::new()).await.unwrap();
        let produced = demo.produce(Arc::new(|_, _| 0), &Shutdown::new()).await.unwrap();
        assert_eq!(produced.values().sum::<i64>(), 1_000);
        let yaml: serde_json::Value = yaml_serde::from_str(&demo.config_yaml()).unwrap();
        assert_eq!(yaml["kafka"]["bootstrap_servers"], demo.services().bootstrap_servers);
        assert_eq!(
            yaml["tables"][1],
            serde_json::json!({"topic": "payments", "table": "shop.payments", "key": {"format": "string"}})
        );
        assert_eq!(yaml["defaults"]["on_topic_change"], "new_incarnation");
        assert!(demo.dir().is_absolute() && demo.dir().join(WAREHOUSE_DIR).is_dir());
        demo.stop().await.unwrap();
    }
}
