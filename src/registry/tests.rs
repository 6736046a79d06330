//! The client against a small server with recorded answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use url::Url;

use super::{ABSENT_TTL, Auth, FAILURE_TTL, LATEST_TTL, Options, RegistryClient};
use crate::error::ErrorKind;
use crate::ports::{Registry as _, SchemaFormat};
use crate::runtime::clock::Clock;
use crate::runtime::task::{self, TaskKind};

/// Requests that a server answers at once.
const PERMITS: u32 = 64;

/// Recorded answers by path, and every request that came.
struct Recorded {
    answers: Mutex<HashMap<String, (u16, String)>>,
    requests: Mutex<Vec<(String, Option<String>)>>,
    /// Each request takes one permit before it is answered.
    gate: Semaphore,
}

struct Server {
    recorded: Arc<Recorded>,
    url: Url,
    _task: task::Task,
}

impl Server {
    async fn start(answers: &[(&str, u16, &str)]) -> Self {
        let answers =
            answers.iter().map(|(path, status, body)| ((*path).to_owned(), (*status, (*body).to_owned()))).collect();
        let recorded = Arc::new(Recorded {
            answers: Mutex::new(answers),
            requests: Mutex::default(),
            gate: Semaphore::new(PERMITS as usize),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().fallback(answer).with_state(Arc::clone(&recorded));
        let task = task::spawn(TaskKind::Server, "recorded", async move {
            axum::serve(listener, router).await.unwrap();
            Ok(())
        });
        Self { recorded, url, _task: task }
    }

    fn answer(&self, path: &str, status: u16, body: &str) {
        self.recorded.answers.lock().unwrap().insert(path.to_owned(), (status, body.to_owned()));
    }

    fn paths(&self) -> Vec<String> {
        self.recorded.requests.lock().unwrap().iter().map(|(path, _)| path.clone()).collect()
    }
}

async fn answer(State(recorded): State<Arc<Recorded>>, uri: Uri, headers: axum::http::HeaderMap) -> Response {
    let auth = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    recorded.requests.lock().unwrap().push((uri.path().to_owned(), auth));
    let _permit = recorded.gate.acquire().await.unwrap();
    let (status, body) = recorded.answers.lock().unwrap().get(uri.path()).cloned().unwrap_or((500, String::new()));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

fn options(urls: &[&Url]) -> Options {
    Options {
        urls: urls.iter().map(|url| (*url).clone()).collect(),
        auth: Auth::None,
        ca_file: None,
        cert_file: None,
        key_file: None,
        timeout: Duration::from_secs(10),
    }
}

fn client(urls: &[&Url]) -> RegistryClient {
    RegistryClient::new(&options(urls), Clock::simulated(1)).unwrap()
}

#[tokio::test]
async fn each_status_means_what_the_caller_does_next() {
    type Expected = Result<Option<SchemaFormat>, ErrorKind>;
    async fn check(status: u16, body: &str, expected: Expected) {
        let server = Server::start(&[("/schemas/ids/7", status, body)]).await;
        let answer = client(&[&server.url]).schema(7).await;
        let found = answer.map(|schema| schema.map(|schema| schema.format)).map_err(|error| error.kind());
        assert_eq!(found, expected, "{status} {body}");
    }
    check(200, r#"{"schema":"\"long\""}"#, Ok(Some(SchemaFormat::Avro))).await;
    check(200, r#"{"schema":"\"long\"","schemaType":"AVRO","references":[]}"#, Ok(Some(SchemaFormat::Avro))).await;
    check(200, r#"{"schema":"message A {}","schemaType":"PROTOBUF"}"#, Ok(Some(SchemaFormat::Protobuf))).await;
    check(200, r#"{"schema":"{}","schemaType":"JSON","guid":"x","ts":1}"#, Ok(Some(SchemaFormat::Json))).await;
    check(200, r#"{"schema":"{}","schemaType":"THRIFT"}"#, Err(ErrorKind::Unavailable)).await;
    check(200, "<html>please log in</html>", Err(ErrorKind::Unavailable)).await;
    for code in [40401, 40402, 40403, 404] {
        check(404, &format!(r#"{{"error_code":{code},"message":"not found"}}"#), Ok(None)).await;
    }
    check(404, "<html>no route</html>", Err(ErrorKind::Unavailable)).await;
    check(404, r#"{"message":"no Route matched with those values"}"#, Err(ErrorKind::Unavailable)).await;
    check(404, "", Err(ErrorKind::Unavailable)).await;
    check(401, r#"{"error_code":0}"#, Err(ErrorKind::Denied)).await;
    check(403, "", Err(ErrorKind::Denied)).await;
    for status in [408, 429, 500, 502, 503] {
        check(status, r#"{"error_code":50001}"#, Err(ErrorKind::Unavailable)).await;
    }
}

#[tokio::test]
async fn the_next_address_answers_for_a_dead_or_broken_one_and_is_asked_first_then() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead: Url = format!("http://{}", closed.local_addr().unwrap()).parse().unwrap();
    drop(closed);
    let broken = Server::start(&[]).await;
    let good =
        Server::start(&[("/schemas/ids/1", 200, r#"{"schema":"1"}"#), ("/schemas/ids/2", 200, r#"{"schema":"2"}"#)])
            .await;
    let client = client(&[&dead, &broken.url, &good.url]);
    assert_eq!(client.schema(1).await.unwrap().unwrap().text, "1");
    assert_eq!(client.schema(2).await.unwrap().unwrap().text, "2");
    assert_eq!(broken.paths(), ["/schemas/ids/1"]);
    assert_eq!(good.paths(), ["/schemas/ids/1", "/schemas/ids/2"]);
}

#[tokio::test]
async fn a_refusal_or_an_absence_is_an_answer_and_no_other_address_is_asked() {
    let first = Server::start(&[("/schemas/ids/1", 403, ""), ("/schemas/ids/2", 404, r#"{"error_code":40403}"#)]).await;
    let second = Server::start(&[]).await;
    let client = client(&[&first.url, &second.url]);
    assert_eq!(client.schema(1).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(client.schema(2).await.unwrap(), None);
    assert!(second.paths().is_empty());
}

#[tokio::test]
async fn concurrent_lookups_of_one_id_make_one_request() {
    let server = Server::start(&[("/schemas/ids/1", 200, r#"{"schema":"1"}"#), ("/schemas/ids/2", 503, "")]).await;
    let held = server.recorded.gate.acquire_many(PERMITS).await.unwrap();
    let client = client(&[&server.url]);
    let lookups = futures::future::join_all((0..20).map(|n| client.schema(1 + n % 2)));
    let (answers, ()) = tokio::join!(lookups, async {
        tokio::task::yield_now().await;
        drop(held);
    });
    for (n, answer) in answers.into_iter().enumerate() {
        match n % 2 {
            0 => assert_eq!(answer.unwrap().unwrap().text, "1"),
            _ => assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable),
        }
    }
    let mut paths = server.paths();
    paths.sort();
    assert_eq!(paths, ["/schemas/ids/1", "/schemas/ids/2"]);
}

#[tokio::test]
async fn references_come_flat_and_each_after_what_it_needs() {
    let server = Server::start(&[
        ("/schemas/ids/9", 200, r#"{"schema":"order","references":[{"name":"a","subject":"shop/a.x","version":2},{"name":"b","subject":"b","version":1}]}"#),
        ("/subjects/shop%2Fa.x/versions/2", 200, r#"{"id":3,"schema":"a","references":[{"name":"c","subject":"c","version":1}]}"#),
        ("/subjects/b/versions/1", 200, r#"{"id":4,"schema":"b","references":[{"name":"c","subject":"c","version":1}]}"#),
        ("/subjects/c/versions/1", 200, r#"{"id":5,"schema":"c"}"#),
    ])
    .await;
    let schema = client(&[&server.url]).schema(9).await.unwrap().unwrap();
    let names: Vec<_> = schema.references.iter().map(|(name, schema)| (name.as_str(), schema.id)).collect();
    assert_eq!(names, [("c", 5), ("a", 3), ("b", 4)]);
    assert_eq!(server.paths().len(), 4, "a schema met twice is fetched once");
}

#[tokio::test]
async fn a_reference_that_is_gone_means_wait() {
    let body = r#"{"schema":"order","references":[{"name":"a","subject":"a","version":2}]}"#;
    let server =
        Server::start(&[("/schemas/ids/9", 200, body), ("/subjects/a/versions/2", 404, r#"{"error_code":40402}"#)])
            .await;
    let error = client(&[&server.url]).schema(9).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("version 2 of subject `a`"), "{error}");
}

#[tokio::test]
async fn answers_are_kept_as_long_as_they_are_true() {
    let absent = r#"{"error_code":40403}"#;
    let latest = "/subjects/s/versions/latest";
    let server = Server::start(&[("/schemas/ids/1", 200, r#"{"schema":"1"}"#), ("/schemas/ids/2", 404, absent)]).await;
    server.answer(latest, 200, r#"{"id":1,"schema":"1"}"#);
    let time = Arc::new(Mutex::new(Duration::ZERO));
    let elapsed = {
        let time = Arc::clone(&time);
        move || *time.lock().unwrap()
    };
    let pass = |duration: Duration| *time.lock().unwrap() += duration;
    let client = RegistryClient::with_time(&options(&[&server.url]), elapsed).unwrap();
    let ask = async || {
        let schema = client.schema(2).await.map(|schema| schema.is_some()).map_err(|error| error.kind());
        (client.schema(1).await.unwrap().is_some(), schema, client.latest("s").await.unwrap().unwrap().id)
    };
    assert_eq!(ask().await, (true, Ok(false), 1));
    server.answer("/schemas/ids/1", 500, "");
    server.answer("/schemas/ids/2", 503, "");
    server.answer(latest, 200, r#"{"id":2,"schema":"2"}"#);
    pass(LATEST_TTL.mul_f64(0.8));
    assert_eq!(ask().await, (true, Ok(false), 1));
    pass(LATEST_TTL.mul_f64(0.2));
    assert_eq!(ask().await, (true, Ok(false), 2));
    pass(ABSENT_TTL.saturating_sub(LATEST_TTL));
    assert_eq!(ask().await, (true, Err(ErrorKind::Unavailable), 2));
    server.answer("/schemas/ids/2", 200, r#"{"schema":"2"}"#);
    pass(FAILURE_TTL);
    assert_eq!(ask().await, (true, Ok(true), 2));
    pass(Duration::from_secs(1_000_000));
    assert_eq!(ask().await, (true, Ok(true), 2));
}

#[tokio::test]
async fn the_path_of_the_address_and_its_user_are_kept_and_the_secret_is_not_told() {
    let path = "/apis/ccompat/v7/subjects/a%2Fb%20%25/versions/latest";
    let server = Server::start(&[(path, 200, r#"{"id":1,"schema":"1"}"#)]).await;
    let mut url = server.url.clone();
    url.set_path("/apis/ccompat/v7/");
    url.set_username("al+ice").unwrap();
    url.set_password(Some("p&w%")).unwrap();
    let client = client(&[&url]);
    assert!(client.latest("a/b %").await.unwrap().is_some());
    // `printf 'al+ice:p&w%%' | base64`
    assert_eq!(
        server.recorded.requests.lock().unwrap()[0],
        (path.to_owned(), Some("Basic YWwraWNlOnAmdyU=".to_owned()))
    );
    let error = client.schema(1).await.unwrap_err();
    assert!(!error.chain().contains("p&w") && !error.chain().contains("p%"), "{}", error.chain());
    assert!(!format!("{client:?}").contains("p&w"));
}

#[tokio::test]
async fn credentials_given_apart_win() {
    let server = Server::start(&[("/schemas/ids/1", 200, r#"{"schema":"1"}"#)]).await;
    let bearer = Options { auth: Auth::Bearer("token".to_owned()), ..options(&[&server.url]) };
    RegistryClient::new(&bearer, Clock::simulated(1)).unwrap().schema(1).await.unwrap();
    assert_eq!(server.recorded.requests.lock().unwrap()[0].1.as_deref(), Some("Bearer token"));
    assert!(!format!("{bearer:?}").contains("token"));
}

#[test]
fn options_that_cannot_work_are_refused() {
    fn check(options: &Options, expected: &str) {
        let error = RegistryClient::new(options, Clock::simulated(1)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(expected), "{error}");
    }
    let rt = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let _guard = rt.enter();
    let url: Url = "https://r".parse().unwrap();
    check(&options(&[]), "no address");
    check(&options(&[&"ftp://user:secret@r".parse().unwrap()]), "`ftp://r/`");
    check(&Options { ca_file: Some("/does/not/exist.pem".into()), ..options(&[&url]) }, "exist.pem");
    check(&Options { cert_file: Some("/c.pem".into()), ..options(&[&url]) }, "both certificate and key");
}
