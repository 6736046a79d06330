//! Authentication and TLS: towards the broker and the registry, and of the listener. Secrets never show.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::evolution::ready;
use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::Frazil;
use crate::services::{Kafka, Registry, ports};
use crate::smoke::produce_orders;
use crate::verify::Verify;
use crate::wait::{block_on, eventually};

const DEADLINE: Duration = Duration::from_mins(1);

/// No log in the test's folder has any of these.
#[track_caller]
fn assert_never_logged(lake: &Lake, secrets: &[&str]) {
    let mut logs = 0;
    for entry in fs::read_dir(&lake.dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            let log = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
            logs += 1;
            for secret in secrets {
                assert!(!log.contains(secret), "{} has `{secret}`", path.display());
            }
        }
    }
    assert!(logs > 0, "no log to look at");
}

/// A topic of ten texts on the broker that asks for authentication, and a configuration that reads it with these
/// librdkafka properties; debug logs, where secrets would show if anywhere.
fn over(lake: &Lake, topic: &str, bootstrap: &str, properties: &Value) -> Value {
    let tables = json!([{"topic": topic, "table": "secure.rows", "value": {"format": "string"}}]);
    let mut config = lake.config(Kafka::with_auth(), Registry::shared(), topic, &tables);
    config["kafka"]["bootstrap_servers"] = bootstrap.into();
    config["kafka"]["properties"] = properties.clone();
    config["log"] = json!({"level": "debug"});
    config
}

fn ten_texts(topic: &str) {
    create_topic(Kafka::with_auth(), topic, 1, &[]);
    let producer = Producer::new(Kafka::with_auth());
    for n in 0..10 {
        producer.send(topic, &Record { value: Some(format!("text {n}").as_bytes()), ..Record::default() });
    }
    producer.flush();
}

fn check_reads(name: &str, bootstrap: &str, properties: &Value) {
    let (lake, topic) = (Lake::local(name), name.replace('_', "-"));
    ten_texts(&topic);
    Frazil::until_caught_up(&lake.dir, &over(&lake, &topic, bootstrap, properties), DEADLINE);
    let verify = Verify::new(Kafka::with_auth(), Registry::shared(), &lake, &topic, "secure.rows");
    assert_eq!(verify.with(&["--value", "string", "--key", "none"]).assert_good(), 10);
    assert_never_logged(&lake, &["alice-secret", "bob-secret"]);
}

fn sasl(protocol: &str, mechanism: &str, user: &str, password: &str) -> Value {
    let ca = Kafka::with_auth().ca();
    let mut properties = json!({
        "security.protocol": protocol, "sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password,
    });
    if protocol == "SASL_SSL" {
        properties["ssl.ca.location"] = ca.to_str().unwrap().into();
    }
    properties
}

#[test]
fn scram_sha_256() {
    let broker = Kafka::with_auth().sasl_plaintext();
    check_reads("security_scram_256", &broker, &sasl("SASL_PLAINTEXT", "SCRAM-SHA-256", "alice", "alice-secret"));
}

#[test]
fn scram_sha_512_over_tls() {
    let broker = Kafka::with_auth().sasl_ssl();
    check_reads("security_scram_512", &broker, &sasl("SASL_SSL", "SCRAM-SHA-512", "alice", "alice-secret"));
}

#[test]
fn plain_over_tls() {
    let broker = Kafka::with_auth().sasl_ssl();
    check_reads("security_plain", &broker, &sasl("SASL_SSL", "PLAIN", "bob", "bob-secret"));
}

#[test]
fn tls_with_an_own_authority() {
    let ca = Kafka::with_auth().ca();
    let properties = json!({"security.protocol": "SSL", "ssl.ca.location": ca});
    check_reads("security_tls", &Kafka::with_auth().ssl(), &properties);
}

#[test]
fn mutual_tls() {
    let (ca, client) = (Kafka::with_auth().ca(), Kafka::with_auth().client_certificate());
    let properties = json!({
        "security.protocol": "SSL", "ssl.ca.location": ca, "ssl.certificate.location": client, "ssl.key.location": client,
    });
    check_reads("security_mutual_tls", &Kafka::with_auth().mutual_tls(), &properties);
}

/// The table waits, says on what and why, and never says the secret.
fn check_waits(name: &str, on: &str, words: &[&str], secrets: &[&str], config: impl Fn(&Lake, &str) -> Value) {
    let (lake, topic) = (Lake::local(name), name.replace('_', "-"));
    ten_texts(&topic);
    let mut frazil = Frazil::run(&lake.dir, &config(&lake, &topic), &[], &[]);
    eventually(&format!("the table waits on {on}, and the log says {words:?}"), DEADLINE, || {
        let health = ready(&frazil, "secure.rows");
        let log = frazil.log().to_lowercase();
        let says = words.iter().all(|word| log.contains(word));
        (health["state"] == "waiting" && health["on"] == on && says).then_some(())
    });
    assert!(frazil.is_running());
    let (_, health) = frazil.get("/readyz").unwrap();
    let (_, metrics) = frazil.get("/metrics").unwrap();
    for secret in secrets {
        assert!(!health.contains(secret) && !metrics.contains(secret), "`{secret}` shows");
    }
    drop(frazil);
    assert_never_logged(&lake, secrets);
}

#[test]
fn a_wrong_password_waits_and_does_not_show() {
    check_waits("security_wrong_password", "kafka", &["authentication"], &["mallory-secret"], |lake, topic| {
        let broker = Kafka::with_auth().sasl_plaintext();
        over(lake, topic, &broker, &sasl("SASL_PLAINTEXT", "SCRAM-SHA-256", "alice", "mallory-secret"))
    });
}

#[test]
fn an_unknown_authority_waits() {
    check_waits("security_unknown_ca", "kafka", &["certificate"], &[], |lake, topic| {
        over(lake, topic, &Kafka::with_auth().ssl(), &json!({"security.protocol": "SSL"}))
    });
}

#[test]
fn a_registry_with_basic_auth() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::with_auth(), Lake::local("security_registry"));
    let topic = "security-registry";
    create_topic(kafka, topic, 1, &[]);
    produce_orders(kafka, registry, topic, 1, 100);
    let tables = json!([{"topic": topic, "table": "secure.rows", "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, topic, &tables);
    config["log"] = json!({"level": "debug"});
    config["schema_registry"]["password"] = "mallory-secret".into();
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    eventually("the table waits for the registry", DEADLINE, || {
        let health = ready(&frazil, "secure.rows");
        (health["state"] == "waiting" && health["on"] == "registry").then_some(())
    });
    drop(frazil);
    config["schema_registry"]["password"] = "alice-secret".into();
    Frazil::until_caught_up(&lake.dir, &config, DEADLINE);
    assert_eq!(Verify::new(kafka, registry, &lake, topic, "secure.rows").with(&["--key", "string"]).assert_good(), 100);
    assert_never_logged(&lake, &["alice-secret", "mallory-secret"]);
}

#[test]
fn off_loopback_the_listener_needs_tls_and_tokens() {
    let lake = Lake::local("security_listener_refused");
    let topic = "security-listener-refused";
    ten_texts(topic);
    let hash = format!("sha256:{}", "0".repeat(64));
    let tls = json!({"cert": fixture("first.crt"), "key": fixture("first.key")});
    let auth = json!({"tokens": [{"name": "t", "hash": hash, "scopes": ["metrics"]}]});
    for server in [json!({}), json!({"tls": tls}), json!({"auth": auth})] {
        let mut config = over(&lake, topic, &Kafka::with_auth().bootstrap(), &json!({}));
        let port = ports(1);
        config["server"] = server;
        config["server"]["listen"] = format!("0.0.0.0:{port}").into();
        let mut frazil = Frazil::run(&lake.dir, &config, &[], &[]);
        assert_eq!(frazil.wait(DEADLINE).code(), Some(1));
        let log = frazil.log();
        assert!(log.contains("server.listen") && log.contains("tls") && log.contains("tokens"), "{log}");
    }
}

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_listener_with_tls_and_tokens() {
    let lake = Lake::local("security_listener");
    let topic = "security-listener";
    ten_texts(topic);
    let mut config = over(&lake, topic, &Kafka::with_auth().bootstrap(), &json!({}));
    let port = ports(1);
    let token = |name: &str, scope: &str| {
        let hash: String = Sha256::digest(format!("{name}-token")).iter().map(|byte| format!("{byte:02x}")).collect();
        json!({"name": name, "hash": format!("sha256:{hash}"), "scopes": [scope]})
    };
    let tokens =
        [token("prometheus", "metrics"), token("reader", "read"), token("writer", "write"), token("root", "admin")];
    config["server"] = json!({
        "listen": format!("0.0.0.0:{port}"), "tls": {"cert": fixture("first.crt"), "key": fixture("first.key")},
        "auth": {"tokens": tokens},
    });
    let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
    // The certificate is of a test's own authority.
    let client = reqwest::Client::builder().danger_accept_invalid_certs(true).build().unwrap();
    let get = |path: &str, token: Option<&str>| {
        block_on(async {
            let request = client.get(format!("https://127.0.0.1:{port}{path}"));
            let request = token.into_iter().fold(request, |request, token| request.bearer_auth(token));
            let answer = request.send().await.ok()?;
            Some((answer.status().as_u16(), answer.text().await.ok()?))
        })
    };
    eventually("the listener is ready", DEADLINE, || (get("/readyz", None)?.0 == 200).then_some(()));
    assert_eq!(get("/livez", None).unwrap().0, 200);
    for (token, status) in [(None, 401), (Some("wrong-token"), 401), (Some("prometheus"), 401)] {
        assert_eq!(get("/metrics", token).unwrap().0, status, "{token:?}");
    }
    for name in ["prometheus", "reader", "writer", "root"] {
        let (status, body) = get("/metrics", Some(&format!("{name}-token"))).unwrap();
        assert!(status == 200 && body.contains("frazil_build_info"), "{name}: {status}");
    }
    assert!(frazil.get("/livez").is_none(), "plain HTTP is answered");
    drop(frazil);
    assert_never_logged(&lake, &["-token"]);
}
