//! The mapping of types as data (`tests/fixtures/conformance`): what official serializers of each language write, by
//! schemas that they register, is what other engines read, column by column and row by row.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::verify::Verify;
use crate::wait::eventually;

const DEADLINE: Duration = Duration::from_mins(3);

fn conforms(language: &str) {
    let lake = Lake::local(&format!("formats_{language}"));
    conforms_by(language, &lake, &Registry::shared().url);
}

/// Writes the records of each step, reads them into tables, and compares these with what the cases say.
fn conforms_by(language: &str, lake: &Lake, registry: &str) {
    let kafka = Kafka::shared();
    let python = Verify::new(kafka, Registry::shared(), lake, "", "");
    let conform = |arguments: &[&str]| -> Output {
        python.python("conform.py", &[&["--language", language, "--registry", registry][..], arguments].concat())
    };
    let plan: Value = serde_json::from_slice(&succeeded(&conform(&["--do", "plan"]))).unwrap();
    let mut config = lake.config(kafka, Registry::shared(), &format!("formats-{language}"), &plan["tables"]);
    config["schema_registry"]["url"] = registry.into();
    for step in 0..plan["steps"].as_u64().unwrap() {
        succeeded(&conform(&["--do", "produce", "--step", &step.to_string()]));
        Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    }
    succeeded(&conform(&["--do", "check"]));
}

/// What it printed; panics with all of it where it failed.
#[track_caller]
fn succeeded(output: &Output) -> Vec<u8> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "conform.py:\n{}{}", text(&output.stdout), text(&output.stderr));
    output.stdout.clone()
}

#[test]
fn avro_conforms() {
    conforms("avro");
}

#[test]
fn protobuf_conforms() {
    conforms("protobuf");
}

#[test]
fn json_schema_conforms() {
    conforms("json");
}

#[test]
fn json_without_schema_conforms() {
    conforms("schemaless");
}

#[test]
fn schemas_named_by_guids_conform() {
    let lake = Lake::local("formats_guids");
    let guids = Guids::start(&lake.dir);
    conforms_by("guids", &lake, &guids.url);
}

/// The shared registry with GUIDs added (`tests/verify/guids.py`).
struct Guids {
    child: Child,
    pid_file: PathBuf,
    url: String,
}

impl Guids {
    fn start(dir: &Path) -> Self {
        let (tests, port) = (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests"), ports(1));
        let child = Command::new(tests.join("services/python.sh"))
            .arg(tests.join("verify/guids.py"))
            .args([&Registry::shared().url, &port.to_string()])
            .spawn()
            .unwrap();
        // The guard ends it if this process cannot.
        let pid_file = dir.join("guids.pid");
        fs::write(&pid_file, child.id().to_string()).unwrap();
        let this = Self { child, pid_file, url: format!("http://127.0.0.1:{port}") };
        eventually("guids.py listens", DEADLINE, || TcpStream::connect(("127.0.0.1", port)).ok());
        this
    }
}

impl Drop for Guids {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
    }
}
