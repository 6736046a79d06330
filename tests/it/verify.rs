//! The offset verifier (`tests/verify`): is the table exactly what the topic says, read by other engines?

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::lake::Lake;
use crate::services::{Kafka, Registry};

/// One comparison of a topic with a table.
pub struct Verify<'a> {
    lake: &'a Lake,
    arguments: Vec<String>,
}

impl<'a> Verify<'a> {
    /// Compares `topic` with `table` (`namespace.table`), by DuckDB and by PyIceberg.
    pub fn new(kafka: &Kafka, registry: &Registry, lake: &'a Lake, topic: &str, table: &str) -> Self {
        let this = Self { lake, arguments: Vec::new() };
        let this = this.with(&["--bootstrap", &kafka.bootstrap(), "--topic", topic, "--table", table]);
        let this = this.with(&["--registry", &registry.url]);
        if let Some(user) = registry.user { this.with(&["--registry-user", user]) } else { this }
    }

    /// Further arguments of `tests/verify/verify.py`.
    #[must_use]
    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.arguments.extend(arguments.iter().map(|&argument| argument.to_owned()));
        self
    }

    /// Runs it; the report has one entry per engine.
    #[track_caller]
    pub fn report(&self) -> Report {
        let output = self.python("verify.py", &["--json"]);
        let report = serde_json::from_slice(&output.stdout);
        Report(report.unwrap_or_else(|_| panic!("the verifier failed: {}", String::from_utf8_lossy(&output.stderr))))
    }

    /// Runs it and panics with the first differences unless the table is good; gives the number of rows.
    #[track_caller]
    pub fn assert_good(&self) -> u64 {
        let report = self.report();
        assert!(report.is_good(), "the table is not what the topic says: {:#}", report.0);
        report.count("rows")
    }

    /// Runs a script of `tests/verify` with these arguments and those of the lake.
    pub fn python(&self, script: &str, further: &[&str]) -> Output {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        Command::new(tests.join("services/python.sh"))
            .arg(tests.join("verify").join(script))
            .args(&self.arguments)
            .args(self.lake.arguments())
            .args(further)
            .output()
            .unwrap()
    }
}

/// What the verifier found, by engine.
#[derive(Debug)]
pub struct Report(Value);

impl Report {
    fn engines(&self) -> impl Iterator<Item = &Value> {
        self.0.as_object().unwrap().values()
    }

    /// Whether every engine found nothing wrong.
    pub fn is_good(&self) -> bool {
        self.engines().next().is_some() && self.engines().all(|engine| engine["good"] == true)
    }

    /// A count that all engines agree on, such as `rows`, `records`, `missing`, `dead_letters`.
    #[track_caller]
    pub fn count(&self, name: &str) -> u64 {
        let counts: Vec<_> = self.engines().map(|engine| engine[name].as_u64().unwrap_or_default()).collect();
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "the engines disagree on {name}: {:#}", self.0);
        counts[0]
    }
}
