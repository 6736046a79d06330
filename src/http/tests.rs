//! The whole listener over real sockets: who gets in, TLS and its change, and how it stops.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{Extension, Router};
use reqwest::{Client, Response, StatusCode};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::auth::{self, Principal, Scope, TokenOptions, hash_token};
use super::tls::{Tls, TlsFiles};
use super::{Options, Server, operations};
use crate::error::ErrorKind;
use crate::runtime::clock::Clock;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::task::{Task, TaskKind, spawn};
use crate::telemetry::health::{Dependency, Health, TableHealth};
use crate::telemetry::metrics::Metrics;

/// Longer than any of these tests takes: what waits for it has hung.
const FOREVER: Duration = Duration::from_hours(1);

struct Running {
    address: SocketAddr,
    base: String,
    tls: Option<Tls>,
    shutdown: Shutdown,
    task: Task,
}

fn options(tokens: &[(&str, &str)]) -> Options {
    let token = |(text, scope): &(&str, &str)| TokenOptions {
        name: format!("{scope}-token"),
        hash: hash_token(text),
        scopes: vec![(*scope).to_owned()],
    };
    let tokens = tokens.iter().map(token).collect();
    Options { listen: "127.0.0.1:0".parse().unwrap(), tls: None, tokens, stop_limit: FOREVER }
}

fn files(name: &str) -> TlsFiles {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
    TlsFiles { cert: folder.join(format!("{name}.crt")), key: folder.join(format!("{name}.key")) }
}

async fn start(options: Options, routes: Router) -> Running {
    let server = Server::bind(&options, routes, Clock::system()).await.unwrap();
    let scheme = if options.tls.is_some() { "https" } else { "http" };
    let address = server.local_addr();
    let base = format!("{scheme}://{address}");
    let (tls, shutdown) = (server.tls(), Shutdown::new());
    let task = spawn(TaskKind::Server, "http", server.serve(shutdown.clone()));
    Running { address, base, tls, shutdown, task }
}

/// The faces for operators, and a route that tells who asks.
fn routes(health: &Health) -> Router {
    let whoami = get(|Extension(principal): Extension<Principal>| async move { principal.name.to_string() });
    operations(health.clone(), Metrics::new(health.clone()))
        .merge(auth::require(Scope::Read, Router::new().route("/whoami", whoami)))
}

/// A client that trusts the named certificate and no other, and would rather speak HTTP/2.
fn client(certificate: &str) -> Client {
    client_of(certificate, &[b"h2", b"http/1.1"])
}

fn client_of(certificate: &str, protocols: &[&[u8]]) -> Client {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(files(certificate).cert).unwrap()).unwrap();
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Client::builder().use_preconfigured_tls(tls).no_proxy().build().unwrap()
}

async fn ask(running: &Running, path: &str, token: Option<&str>) -> Response {
    let request = client("first").get(format!("{}{path}", running.base));
    let request = token.into_iter().fold(request, reqwest::RequestBuilder::bearer_auth);
    request.send().await.unwrap()
}

#[tokio::test]
async fn readyz_says_what_is_waited_for() {
    let health = Health::new();
    let running = start(options(&[("secret", "metrics")]), routes(&health)).await;
    assert_eq!(ask(&running, "/livez", None).await.status(), StatusCode::OK);
    assert_eq!(ask(&running, "/livez", Some("wrong")).await.status(), StatusCode::OK);

    let table = "shop.orders".parse().unwrap();
    health.set_table(&table, TableHealth::Waiting { on: Dependency::Kafka, since_ms: 7, error: "refused".into() });
    health.set_started();
    let answer = ask(&running, "/readyz", None).await;
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["tables"]["shop.orders"]["on"], "kafka");

    health.set_table(&table, TableHealth::Ok);
    assert_eq!(ask(&running, "/readyz", None).await.status(), StatusCode::OK);
}

#[tokio::test]
async fn tokens_open_what_their_scopes_include() {
    let running = start(options(&[("m", "metrics"), ("r", "read")]), routes(&Health::new())).await;
    for (path, token, status) in [
        ("/metrics", None, 401),
        ("/metrics", Some("wrong"), 401),
        ("/metrics", Some("m"), 200),
        ("/metrics", Some("r"), 200),
        ("/whoami", None, 401),
        ("/whoami", Some("m"), 403),
        ("/whoami", Some("r"), 200),
        ("/nowhere", Some("r"), 404),
    ] {
        let answer = ask(&running, path, token).await;
        assert_eq!(answer.status(), status, "{path} with {token:?}");
        let challenge = answer.headers().get("www-authenticate").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(challenge.as_deref(), (status == 401).then_some("Bearer"));
        if status != 200 {
            let body: serde_json::Value = answer.json().await.unwrap();
            let (code, message) = (&body["error"]["code"], &body["error"]["message"]);
            let expected = [(401, "unauthorized"), (403, "forbidden"), (404, "not_found")];
            assert_eq!(code, expected.iter().find(|(known, _)| *known == status).unwrap().1);
            assert!(message.is_string());
        }
    }
    assert_eq!(ask(&running, "/whoami", Some("r")).await.text().await.unwrap(), "read-token");
    let posted = client("first").post(format!("{}/livez", running.base)).send().await.unwrap();
    assert_eq!(posted.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(posted.json::<serde_json::Value>().await.unwrap()["error"]["code"], "method_not_allowed");
}

#[tokio::test]
async fn without_tokens_loopback_may_do_everything() {
    let running = start(options(&[]), routes(&Health::new())).await;
    assert_eq!(ask(&running, "/whoami", None).await.text().await.unwrap(), "local");
    let metrics = ask(&running, "/metrics", None).await;
    assert_eq!(metrics.headers()["content-type"], "text/plain; version=0.0.4");
    assert!(metrics.text().await.unwrap().contains("frazil_build_info"));
}

#[tokio::test]
async fn other_machines_need_both_tls_and_tokens() {
    let bind = async |listen: &str, tls: Option<TlsFiles>, tokens: &[(&str, &str)]| {
        let options = Options { listen: listen.parse().unwrap(), tls, ..options(tokens) };
        Server::bind(&options, Router::new(), Clock::system()).await.map(|_| ())
    };
    for listen in ["0.0.0.0:0", "[::]:0", "[::ffff:0.0.0.0]:0", "192.0.2.1:0"] {
        for (tls, tokens) in [(None, &[][..]), (Some(files("first")), &[]), (None, &[("x", "read")])] {
            let error = bind(listen, tls, tokens).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains("other machines"), "{listen}: {error}");
        }
    }
    bind("0.0.0.0:0", Some(files("first")), &[("x", "read")]).await.unwrap();
    bind("127.0.0.2:0", None, &[]).await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_is_said_at_once() {
    let first = Server::bind(&options(&[]), Router::new(), Clock::system()).await.unwrap();
    let again = Options { listen: first.local_addr(), ..options(&[]) };
    let error = Server::bind(&again, Router::new(), Clock::system()).await.map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains("another process uses it"), "{error}");
}

#[tokio::test]
async fn a_new_certificate_is_used_for_new_connections() {
    let running = start(Options { tls: Some(files("first")), ..options(&[]) }, routes(&Health::new())).await;
    let livez = format!("{}/livez", running.base);
    let (old, new) = (client("first"), client("second"));
    assert_eq!(old.get(&livez).send().await.unwrap().version(), reqwest::Version::HTTP_2);
    new.get(&livez).send().await.unwrap_err();

    let tls = running.tls.as_ref().unwrap();
    tls.reload(&files("third")).unwrap_err();
    tls.reload(&files("second")).unwrap();
    assert_eq!(new.get(&livez).send().await.unwrap().status(), StatusCode::OK);
    client("first").get(&livez).send().await.unwrap_err();
    assert_eq!(old.get(&livez).send().await.unwrap().status(), StatusCode::OK, "its connection goes on");
}

#[tokio::test]
async fn http_1_is_spoken_over_tls() {
    let running = start(Options { tls: Some(files("first")), ..options(&[]) }, routes(&Health::new())).await;
    let client = client_of("first", &[]);
    let answer = client.get(format!("{}/livez", running.base)).send().await.unwrap();
    assert_eq!((answer.status(), answer.version()), (StatusCode::OK, reqwest::Version::HTTP_11));
}

/// A route that says when it was reached and answers when it is let go.
fn slow(reached: &Arc<Notify>, go: &Arc<Notify>) -> Router {
    let (reached, go) = (Arc::clone(reached), Arc::clone(go));
    let answer = move || async move {
        reached.notify_one();
        go.notified().await;
        "done"
    };
    Router::new().route("/slow", get(answer))
}

#[tokio::test]
async fn stopping_ends_idle_connections_and_finishes_answers() {
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let mut running = start(options(&[]), slow(&reached, &go).merge(routes(&Health::new()))).await;
    let idle = client("first");
    idle.get(format!("{}/livez", running.base)).send().await.unwrap().bytes().await.unwrap();

    let url = format!("{}/slow", running.base);
    let asked = async { client("first").get(&url).send().await.unwrap().text().await.unwrap() };
    let stopped = async {
        reached.notified().await;
        running.shutdown.request();
        // The answer is let go only once the listener is closed, and so after the stop has begun.
        while TcpStream::connect(running.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        go.notify_one();
        running.task.join().await.unwrap();
    };
    let (text, ()) = tokio::join!(asked, stopped);
    assert_eq!(text, "done");
    idle.get(format!("{}/livez", running.base)).send().await.unwrap_err();
}

#[tokio::test]
async fn what_is_open_after_the_stop_limit_is_cut() {
    let (reached, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limited = Options { stop_limit: Duration::from_millis(1), ..options(&[]) };
    let mut running = start(limited, slow(&reached, &go)).await;
    let url = format!("{}/slow", running.base);
    let asked = async { client("first").get(&url).send().await.map(|_| ()) };
    let stopped = async {
        reached.notified().await;
        running.shutdown.request();
        running.task.join().await.unwrap();
    };
    let (answer, ()) = tokio::join!(asked, stopped);
    answer.unwrap_err();
}
