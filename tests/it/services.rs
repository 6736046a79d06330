//! The real services: started by the scripts in `tests/services`, on free ports, below one folder per test process.
//!
//! Each has `shared()`, started once and used by all tests that leave it alone, and `start(name)`, one of the test's
//! own to stop and kill. A guard process holds a pipe to this process and ends all of them when the pipe closes, which
//! the kernel sees to even after a `kill -9`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use serde_json::{Value, json};

use crate::wait::block_on;

struct Root {
    dir: PathBuf,
    _guard: ChildStdin,
}

static ROOT: LazyLock<Root> = LazyLock::new(|| {
    let dir = tempfile::Builder::new().prefix("frazil-it-").tempdir().unwrap().keep();
    // Postgres runs as another user where the tests run as root.
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    #[expect(clippy::zombie_processes, reason = "it outlives this process: that is its purpose")]
    let mut guard = Command::new(path("guard.sh"))
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    Root { dir, _guard: guard.stdin.take().unwrap() }
});

fn path(script: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services").join(script)
}

/// A new folder below the one of this process; it goes with it.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let dir = ROOT.dir.join(format!("{name}-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&dir).unwrap();
    dir
}

/// The first of `count` ports in a row that are free. They lie below the range of outgoing connections.
pub fn ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 10_000;
    const LAST: u16 = 32_000;
    // Test processes that run at the same time look at different ports first.
    let offset = u16::try_from(std::process::id() % 200).unwrap() * 100;
    loop {
        let from = offset + NEXT.fetch_add(count, Ordering::Relaxed);
        let base = FIRST + from % (LAST - FIRST);
        if (base..base + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return base;
        }
    }
}

/// Runs a script of `tests/services` and gives what it printed.
#[track_caller]
pub fn script(name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    let output = Command::new(path(name)).args(arguments).envs(environment.iter().copied()).output().unwrap();
    assert!(
        output.status.success(),
        "{name} {arguments:?}: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn text(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

/// A Kafka cluster on loopback.
pub struct Kafka {
    dir: PathBuf,
    port: u16,
    nodes: u16,
}

impl Kafka {
    /// The one node that tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Kafka> = LazyLock::new(|| Kafka::start("kafka", 1, false));
        &SHARED
    }

    /// A node with SASL and TLS listeners that tests share.
    pub fn with_auth() -> &'static Self {
        static SHARED: LazyLock<Kafka> = LazyLock::new(|| Kafka::start("kafka-auth", 1, true));
        &SHARED
    }

    /// A cluster of the test's own.
    pub fn start(name: &str, nodes: u16, auth: bool) -> Self {
        let this = Self { dir: folder(name), port: ports(10 * nodes), nodes };
        let environment: &[_] = if auth { &[("AUTH", "1")] } else { &[] };
        script("kafka.sh", &["up", text(&this.dir), &this.port.to_string(), &nodes.to_string()], environment);
        this
    }

    /// Bootstrap servers of the plain listener, where everybody may do everything.
    pub fn bootstrap(&self) -> String {
        self.listener(0)
    }

    /// SASL without TLS: SCRAM for `alice` with `alice-secret`, PLAIN for `bob` with `bob-secret`.
    pub fn sasl_plaintext(&self) -> String {
        self.listener(2)
    }

    /// SASL over TLS.
    pub fn sasl_ssl(&self) -> String {
        self.listener(3)
    }

    /// TLS alone.
    pub fn ssl(&self) -> String {
        self.listener(4)
    }

    /// TLS that asks for the client's certificate.
    pub fn mutual_tls(&self) -> String {
        self.listener(5)
    }

    /// A client's certificate and key, in one file.
    pub fn client_certificate(&self) -> PathBuf {
        self.dir.join("tls/client.pem")
    }

    fn listener(&self, offset: u16) -> String {
        let nodes: Vec<_> =
            (0..self.nodes).map(|node| format!("127.0.0.1:{}", self.port + 10 * node + offset)).collect();
        nodes.join(",")
    }

    /// The certificate authority of the TLS listeners.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("tls/ca.pem")
    }

    /// Kills a node (1, 2, …).
    pub fn kill(&self, node: u16) {
        script("kafka.sh", &["kill", text(&self.dir), &node.to_string()], &[]);
    }

    /// Stops a node cleanly.
    pub fn stop(&self, node: u16) {
        script("kafka.sh", &["stop", text(&self.dir), &node.to_string()], &[]);
    }

    /// Starts a node again and waits for it.
    pub fn restart(&self, node: u16) {
        script("kafka.sh", &["start", text(&self.dir), &node.to_string()], &[]);
    }
}

/// A schema registry.
pub struct Registry {
    dir: PathBuf,
    port: u16,
    /// Its base URL, with a path.
    pub url: String,
    /// `user:password` where it asks for one.
    pub user: Option<&'static str>,
}

impl Registry {
    /// The one that tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Registry> = LazyLock::new(|| Registry::start("registry", false));
        &SHARED
    }

    /// The one with basic auth that tests share.
    pub fn with_auth() -> &'static Self {
        static SHARED: LazyLock<Registry> = LazyLock::new(|| Registry::start("registry-auth", true));
        &SHARED
    }

    /// One of the test's own.
    pub fn start(name: &str, auth: bool) -> Self {
        let user = auth.then_some("alice:alice-secret");
        let mut this = Self { dir: folder(name), port: ports(2), url: String::new(), user };
        this.url = this.up();
        this
    }

    fn up(&self) -> String {
        let environment: &[_] = if self.user.is_some() { &[("AUTH", "1")] } else { &[] };
        script("registry.sh", &["up", text(&self.dir), &self.port.to_string()], environment)
    }

    /// Stops it; what it knows stays.
    pub fn stop(&self) {
        script("registry.sh", &["down", text(&self.dir)], &[]);
    }

    /// Starts it again.
    pub fn restart(&self) {
        self.up();
    }
}

/// A Postgres server.
pub struct Postgres {
    dir: PathBuf,
    /// Its port on loopback.
    pub port: u16,
}

impl Postgres {
    /// The one that tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Postgres> = LazyLock::new(|| Postgres::start("postgres"));
        &SHARED
    }

    /// One of the test's own.
    pub fn start(name: &str) -> Self {
        let this = Self { dir: folder(name), port: ports(1) };
        this.restart();
        this
    }

    /// Makes a database and gives its URI.
    pub fn database(&self, name: &str) -> String {
        script("postgres.sh", &["create", &self.port.to_string(), name], &[]);
        Self::uri(self.port, name)
    }

    /// The URI of a database through another port, as of a proxy.
    pub fn uri(port: u16, name: &str) -> String {
        format!("postgres://frazil@127.0.0.1:{port}/{name}")
    }

    /// An immediate stop, as in a crash.
    pub fn kill(&self) {
        script("postgres.sh", &["kill", text(&self.dir)], &[]);
    }

    /// Starts it (again).
    pub fn restart(&self) {
        script("postgres.sh", &["up", text(&self.dir), &self.port.to_string()], &[]);
    }
}

/// An S3 server with one bucket, `lake`.
pub struct S3 {
    dir: PathBuf,
    /// Its port on loopback.
    pub port: u16,
}

impl S3 {
    /// The one that tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<S3> = LazyLock::new(|| S3::start("s3"));
        &SHARED
    }

    /// One of the test's own.
    pub fn start(name: &str) -> Self {
        let this = Self { dir: folder(name), port: ports(1) };
        this.restart();
        this
    }

    /// The folder whose files are the bucket's objects.
    pub fn bucket(&self) -> PathBuf {
        self.dir.join("buckets/lake")
    }

    /// Kills it; objects stay.
    pub fn kill(&self) {
        script("s3.sh", &["kill", text(&self.dir)], &[]);
    }

    /// Starts it (again).
    pub fn restart(&self) {
        script("s3.sh", &["up", text(&self.dir), &self.port.to_string(), "lake"], &[]);
    }
}

/// Copies tables, each `namespace.table` or `namespace.table@snapshot`, with Spark out of the REST catalog that has these
/// properties (`uri=…`); gives the folder where the verifier finds them. Spark starts slowly: one start for all of them.
#[track_caller]
pub fn spark_copies(tables: &[&str], catalog: &[&str]) -> PathBuf {
    let (dir, tables) = (folder("spark"), tables.join(","));
    let copy = ["copy", text(&dir), tables.as_str()];
    script("spark.sh", &[&copy[..], catalog].concat(), &[]);
    dir
}

/// A Trino with one catalog, `iceberg`: a REST catalog whose tables are local files.
pub struct Trino {
    dir: PathBuf,
    /// Its address.
    pub url: String,
}

impl Trino {
    /// One of the test's own, over the REST catalog at `catalog`.
    pub fn start(name: &str, catalog: &str) -> Self {
        let (dir, port) = (folder(name), ports(1));
        script("trino.sh", &["up", text(&dir), &port.to_string(), catalog], &[]);
        Self { dir, url: format!("http://127.0.0.1:{port}") }
    }
}

/// The fault proxy. Each proxy belongs to the test that made it.
pub struct Toxiproxy {
    api: String,
}

impl Toxiproxy {
    /// The one that tests share.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Toxiproxy> = LazyLock::new(|| {
            let (dir, port) = (folder("toxiproxy"), ports(1));
            script("toxiproxy.sh", &["up", text(&dir), &port.to_string()], &[]);
            Toxiproxy { api: format!("http://127.0.0.1:{port}") }
        });
        &SHARED
    }

    /// A proxy in front of a port on loopback.
    pub fn proxy(&self, name: &str, upstream: u16) -> Proxy {
        let port = ports(1);
        let body = json!({
            "name": name, "listen": format!("127.0.0.1:{port}"), "upstream": format!("127.0.0.1:{upstream}"), "enabled": true,
        });
        call(reqwest::Method::POST, &format!("{}/proxies", self.api), Some(&body));
        Proxy { url: format!("{}/proxies/{name}", self.api), port }
    }
}

/// One proxied port.
pub struct Proxy {
    url: String,
    /// Where to connect instead.
    pub port: u16,
}

impl Proxy {
    /// Adds a fault, as `("latency", "downstream", json!({"latency": 500}))`; its name is its kind and direction.
    pub fn add(&self, kind: &str, stream: &str, attributes: &Value) {
        let body =
            json!({"name": format!("{kind}_{stream}"), "type": kind, "stream": stream, "attributes": attributes});
        call(reqwest::Method::POST, &format!("{}/toxics", self.url), Some(&body));
    }

    /// Takes a fault away.
    pub fn remove(&self, kind: &str, stream: &str) {
        call(reqwest::Method::DELETE, &format!("{}/toxics/{kind}_{stream}", self.url), None);
    }

    /// Refuses connections and ends those that are open, or takes them again.
    pub fn enable(&self, enabled: bool) {
        call(reqwest::Method::POST, &self.url, Some(&json!({"enabled": enabled})));
    }
}

#[track_caller]
fn call(method: reqwest::Method, url: &str, body: Option<&Value>) {
    let (status, answer) = block_on(async {
        let request = reqwest::Client::new().request(method, url);
        let answer = body.into_iter().fold(request, reqwest::RequestBuilder::json).send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    });
    assert!(status.is_success(), "{url}: {status}: {answer}");
}

macro_rules! stops_when_dropped {
    ($($service:ident: $script:literal $verb:literal),*) => {$(
        impl Drop for $service {
            fn drop(&mut self) {
                // Not `script`: a panic while a test is failing would hide why. The guard ends what is left.
                let _ = Command::new(path($script)).arg($verb).arg(&self.dir).output();
            }
        }
    )*};
}

stops_when_dropped! { Kafka: "kafka.sh" "down", Registry: "registry.sh" "down", Postgres: "postgres.sh" "kill", S3: "s3.sh" "kill", Trino: "trino.sh" "down" }
