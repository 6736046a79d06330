//! The binary under test as a process: started with a configuration, watched, ended in every way.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::wait::{block_on, eventually};

const BINARY: &str = env!("CARGO_BIN_EXE_frazil");

/// A running `frazil`.
pub struct Frazil {
    child: Child,
    /// Its configuration file.
    pub config: PathBuf,
    log: PathBuf,
    pid_file: PathBuf,
    url: String,
}

impl Frazil {
    /// Starts `frazil run` on `config` with further arguments and environment; log and configuration go into `dir`.
    pub fn run(dir: &Path, config: &Value, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let base = dir.join(format!("frazil-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = write_config(&base.with_extension("yaml"), config);
        let (log, pid_file) = (base.with_extension("log"), base.with_extension("pid"));
        let output = File::create(&log).unwrap();
        let child = Command::new(BINARY)
            .args(["run", "-c"])
            .arg(&file)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        // The guard ends what this process leaves behind.
        fs::write(&pid_file, child.id().to_string()).unwrap();
        let url = format!("http://{}", config["server"]["listen"].as_str().unwrap());
        Self { child, config: file, log, pid_file, url }
    }

    /// Runs `frazil run --until-caught-up` to its end, which must be a good one.
    #[track_caller]
    pub fn until_caught_up(dir: &Path, config: &Value, deadline: Duration) {
        let mut frazil = Self::run(dir, config, &["--until-caught-up"], &[]);
        let status = frazil.wait(deadline);
        assert!(status.success(), "frazil run --until-caught-up: {status}");
    }

    /// Everything it has logged and printed.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        eventually("frazil has ended", deadline, || self.child.try_wait().unwrap())
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(deadline)
    }

    /// SIGKILL, and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its name, such as `HUP` or `STOP`.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success(), "kill -{name}: {status}");
    }

    /// Waits for a text in its log.
    #[track_caller]
    pub fn await_log(&self, text: &str, deadline: Duration) {
        eventually(&format!("the log has `{text}`"), deadline, || self.log().contains(text).then_some(()));
    }

    /// Asks its listener; `None` while there is nobody listening.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        block_on(async {
            let answer = reqwest::Client::new().get(format!("{}{path}", self.url)).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    }

    /// Posts JSON to its listener; `None` while there is nobody listening.
    pub fn post(&self, path: &str, body: &Value) -> Option<(u16, String)> {
        self.post_as(path, body, "application/json")
    }

    /// As [`Frazil::post`], for an answer of that kind.
    pub fn post_as(&self, path: &str, body: &Value, accept: &str) -> Option<(u16, String)> {
        block_on(async {
            let request = reqwest::Client::new().post(format!("{}{path}", self.url)).header("accept", accept);
            let answer = request.json(body).send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    }

    /// The first figure of that name among the metrics whose labels have this text.
    pub fn metric(&self, name: &str, labels: &str) -> Option<u64> {
        let (_, text) = self.get("/metrics")?;
        let mut lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
        lines.find(|line| line.contains(labels))?.rsplit_once(' ')?.1.parse().ok()
    }
}

impl Drop for Frazil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_file(&self.pid_file);
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of {}", self.log.display());
            lines[lines.len().saturating_sub(60)..].iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// Runs a command of the binary other than `run` to its end.
pub fn frazil(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

/// Writes a configuration; JSON is YAML.
pub fn write_config(file: &Path, config: &Value) -> PathBuf {
    fs::write(file, serde_json::to_vec_pretty(config).unwrap()).unwrap();
    file.to_owned()
}
