//! `frazil demo` as a newcomer meets it: it needs nothing, checks itself, and what it prints works as printed.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::process::frazil;
use crate::services::{folder, script};
use crate::wait::eventually;

const MINUTE: Duration = Duration::from_mins(1);

/// The demo listens at one address: one at a time.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn once(dir: &Path) -> Value {
    let output = frazil(&["demo", "--once", "--json", "--dir", dir.to_str().unwrap()]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    assert!(told.contains("frazil sql -c"), "{told}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn rows(summary: &Value) -> u64 {
    summary["tables"].as_array().unwrap().iter().map(|table| table["rows"].as_u64().unwrap()).sum()
}

#[test]
fn it_checks_itself_goes_on_in_its_folder_and_its_commands_work() {
    let _turn = turn();
    let dir = folder("demo").join("a demo");
    let first = once(&dir);
    assert_eq!((first["checked"]["records"].as_u64(), rows(&first)), (Some(50_000), 50_000), "{first}");
    let second = once(&dir);
    assert_eq!(rows(&second), 100_000, "{second}");
    let found = second["checked"]["found"].as_str().unwrap();
    assert!(found.starts_with("tickets"), "{second}");
    // The environment of the tests has what the first command would install.
    let python = script("python.sh", &["-c", "import sys; print(sys.prefix)"], &[]);
    std::os::unix::fs::symlink(python.trim(), dir.join("venv")).unwrap();
    let commands = second["commands"].as_array().unwrap();
    assert!(commands[0]["shell"].as_str().unwrap().contains("-m venv"), "{commands:?}");
    for command in &commands[1..] {
        let output = Command::new("sh").args(["-c", command["shell"].as_str().unwrap()]).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(
            output.status.success() && out.contains("shop.orders") | out.contains("captured") | out.contains("paid"),
            "{command}: {out}{err}"
        );
    }
}

/// A demo that goes on until it is told to end; what it tells goes into a file.
struct Live(Child, PathBuf);

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        if std::thread::panicking() {
            eprintln!("--- what the demo told\n{}", fs::read_to_string(&self.1).unwrap_or_default());
        }
    }
}

#[test]
fn what_it_prints_while_it_runs_works_as_printed() {
    let _turn = turn();
    let dir = folder("demo-live");
    let log = dir.join("told.log");
    let child = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["demo", "--dir", dir.to_str().unwrap(), "--rate", "2000"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let _live = Live(child, log.clone());
    let told = eventually("the demo says what to try", MINUTE, || {
        let told = fs::read_to_string(&log).ok()?;
        told.contains("Ctrl-C").then(|| told.lines().map(str::to_owned).collect::<Vec<String>>())
    });
    let printed = |start: &str| {
        let found = told.iter().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line begins with `{start}`: {told:#?}")).clone()
    };
    let path = format!(
        "{}:{}",
        Path::new(env!("CARGO_BIN_EXE_frazil")).parent().unwrap().display(),
        "/usr/local/bin:/usr/bin:/bin"
    );
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line]).env("PATH", &path).output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let sql = printed("frazil sql").replace("frazil sql", "frazil sql --format csv");
    let count = || -> Option<u64> {
        let (good, out) = run(&sql);
        out.lines().nth(1)?.split(',').next()?.parse().ok().filter(|_| good)
    };
    let first = eventually("SQL counts orders", MINUTE, || count().filter(|count| *count > 0));
    eventually("SQL counts more orders", MINUTE, || count().filter(|count| *count > first));
    let search = printed("frazil search");
    let found = eventually("a search finds tickets", MINUTE, || {
        let (good, out) = run(&search);
        (good && out.contains("support.tickets")).then_some(out)
    });
    assert!(found.starts_with("tickets/0/"), "{found}");
    let (good, out) = run(&printed("curl -s"));
    assert!(good && out.contains("\"returned\":1"), "{out}");
    assert!(fs::read_to_string(dir.join("frazil.yaml")).unwrap().contains("support.tickets"));
}
