//! Where a test's tables lie: catalog, warehouse and storage, as the configuration and as the verifier want them told.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::services::{Kafka, Postgres, Registry, S3, folder};

/// A catalog and a warehouse of the test's own.
pub struct Lake {
    /// The test's folder: configuration, logs, and the warehouse where it is local.
    pub dir: PathBuf,
    /// The catalog's URI.
    pub catalog: String,
    /// The warehouse's location.
    pub warehouse: String,
    s3_port: Option<u16>,
}

impl Lake {
    /// SQLite and a local folder.
    pub fn local(name: &str) -> Self {
        let dir = folder(name);
        let (catalog, warehouse) =
            (format!("sqlite://{}/catalog.db", dir.display()), format!("{}/warehouse", dir.display()));
        Self { dir, catalog, warehouse, s3_port: None }
    }

    /// Postgres and S3, the shared ones.
    pub fn remote(name: &str) -> Self {
        Self::over(name, Postgres::shared().database(name), S3::shared().port)
    }

    /// A Postgres database and an S3 server by their addresses, which may be those of proxies.
    pub fn over(name: &str, catalog: String, s3_port: u16) -> Self {
        Self { dir: folder(name), catalog, warehouse: format!("s3://lake/{name}"), s3_port: Some(s3_port) }
    }

    /// A configuration over these services with the table entries given; change what the test is about.
    pub fn config(&self, kafka: &Kafka, registry: &Registry, group: &str, tables: &Value) -> Value {
        let mut config = json!({
            "kafka": {"bootstrap_servers": kafka.bootstrap(), "group_id": group},
            "schema_registry": {"url": registry.url},
            "catalog": {"type": "sql", "uri": self.catalog, "warehouse": self.warehouse},
            "defaults": {"namespace": "lake", "commit_interval": "1s", "on_error": "dead_letter"},
            "tables": tables,
            "server": {"listen": format!("127.0.0.1:{}", crate::services::ports(1))},
        });
        if let Some((user, password)) = registry.user.and_then(|user| user.split_once(':')) {
            config["schema_registry"]["username"] = user.into();
            config["schema_registry"]["password"] = password.into();
        }
        if let Some(port) = self.s3_port {
            config["storage"] = json!({
                "aws_endpoint": format!("http://127.0.0.1:{port}"), "aws_region": "us-east-1",
                "aws_access_key_id": "frazil", "aws_secret_access_key": "frazil-secret", "aws_allow_http": "true",
            });
        }
        config
    }

    /// The verifier's arguments for this lake.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--catalog".to_owned(), self.catalog.clone()];
        if let Some(port) = self.s3_port {
            let endpoint = format!("http://127.0.0.1:{port}");
            let s3 = json!({"endpoint": endpoint, "region": "us-east-1", "key": "frazil", "secret": "frazil-secret"});
            arguments.extend(["--s3".to_owned(), s3.to_string()]);
        }
        arguments
    }

    /// A path below the test's folder.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.join(name)
    }

    /// The files of a local warehouse whose names end so, sorted.
    pub fn files(&self, suffix: &str) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![PathBuf::from(&self.warehouse)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_str().unwrap().ends_with(suffix) {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }
}
