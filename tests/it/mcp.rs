//! The MCP server of the running service, and on standard input and output: both eras of the protocol over plain HTTP,
//! every tool against real topics and tables, scopes, limits, the audit, and who is turned away.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::kafka::{Producer, Record, create_topic};
use crate::lake::Lake;
use crate::process::{Frazil, frazil, write_config};
use crate::services::{Kafka, Registry};
use crate::smoke::produce_orders;
use crate::wait::{block_on, eventually};

const MINUTE: Duration = Duration::from_mins(1);
/// The protocol that is stateless, and the one before it.
pub const MODERN: &str = "2026-07-28";
pub const LEGACY: &str = "2025-11-25";

/// A query that takes hours.
const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000) a, generate_series(1, 1000000) b \
                       WHERE a.value * b.value < 0";

/// A running service with a table of orders, and one token for each scope.
pub struct Served {
    pub frazil: Frazil,
    pub lake: Lake,
    pub url: String,
    topic: String,
}

fn token(name: &str, scope: &str) -> Value {
    let hash = Sha256::digest(format!("{name}-token"));
    let hash = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    json!({"name": name, "hash": format!("sha256:{hash}"), "scopes": [scope]})
}

impl Served {
    pub fn start(name: &str, records: i64, settings: &Value) -> Self {
        let tokens = [("reader", "read"), ("analyst", "read:sql"), ("finder", "read:search"), ("looker", "read:kafka")];
        let tokens: Value = tokens.iter().map(|(name, scope)| token(name, scope)).collect();
        Self::with(name, records, settings, &json!({"auth": {"tokens": tokens}}))
    }

    /// One that knows no tokens: whoever reaches the loopback may read.
    pub fn open(name: &str, records: i64) -> Self {
        Self::with(name, records, &json!({}), &json!({}))
    }

    fn with(name: &str, records: i64, settings: &Value, server: &Value) -> Self {
        let (kafka, registry, lake, topic) =
            (Kafka::shared(), Registry::shared(), Lake::local(name), name.replace('_', "-"));
        create_topic(kafka, &topic, 3, &[]);
        produce_orders(kafka, registry, &topic, 3, records);
        let index = json!({"text": "{note}", "filters": ["customer_id"]});
        let tables = json!([{"topic": topic, "table": "shop.orders", "key": {"format": "string"}, "index": index}]);
        let mut config = lake.config(kafka, registry, &topic, &tables);
        config["index"] = json!({"uri": lake.path("index")});
        config["server"].as_object_mut().unwrap().extend(server.as_object().unwrap().clone());
        config["mcp"] = settings.clone();
        config["mcp"]["audit_file"] = lake.path("audit.jsonl").to_str().unwrap().into();
        let url = format!("http://{}/mcp", config["server"]["listen"].as_str().unwrap());
        let frazil = Frazil::run(&lake.dir, &config, &[], &[]);
        Self { frazil, lake, url, topic }
    }

    /// Sends a request and gives status and body.
    fn post(&self, token: &str, headers: &[(&str, &str)], body: &Value) -> Option<(u16, Value)> {
        block_on(async {
            let mut request = reqwest::Client::new().post(&self.url).bearer_auth(format!("{token}-token")).json(body);
            request = request.header("accept", "application/json, text/event-stream");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.ok()?;
            let (status, text) = (answer.status().as_u16(), answer.text().await.ok()?);
            Some((status, serde_json::from_str(&text).unwrap_or(text.into())))
        })
    }

    #[track_caller]
    fn rpc(&self, era: &str, token: &str, method: &str, params: Value) -> Value {
        let mut params = params;
        let name = params["name"].as_str().or(params["uri"].as_str()).unwrap_or_default().to_owned();
        let mut headers = vec![("mcp-protocol-version", era)];
        if era == MODERN {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "it", "version": "1"},
            });
            headers.push(("mcp-method", method));
            if !name.is_empty() {
                headers.push(("mcp-name", &name));
            }
        }
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let (status, answer) = self.post(token, &headers, &body).expect("the listener answers");
        assert_eq!(status, 200, "{method}: {answer}");
        answer
    }

    /// A tool's answer, which must not be a refusal, and says the same in both of its forms.
    #[track_caller]
    fn call(&self, era: &str, tool: &str, arguments: &Value) -> Value {
        let answer = self.rpc(era, "reader", "tools/call", json!({"name": tool, "arguments": arguments}));
        let result = &answer["result"];
        assert_eq!(result["isError"], false, "{tool} {arguments}: {answer}");
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, result["structuredContent"], "{tool}");
        text
    }

    #[track_caller]
    fn refused(&self, token: &str, tool: &str, arguments: &Value) -> Value {
        let answer = self.rpc(MODERN, token, "tools/call", json!({"name": tool, "arguments": arguments}));
        assert_eq!(answer["result"]["isError"], true, "{tool} {arguments}: {answer}");
        answer["result"]["structuredContent"].clone()
    }

    /// What `/api/sql` answers.
    fn sql(&self, token: &str, body: &Value) -> Option<(u16, Value)> {
        let url = self.url.replace("/mcp", "/api/sql");
        let request = reqwest::Client::new().post(url).bearer_auth(format!("{token}-token")).json(body);
        block_on(async {
            let answer = request.send().await.ok()?;
            Some((answer.status().as_u16(), answer.json().await.ok()?))
        })
    }

    /// Waits until the table has that many committed rows, without a call that counts.
    pub fn await_rows(&self, count: u64) {
        let body = json!({"sql": "SELECT count(*) AS n FROM shop.orders", "consistency": "committed"});
        eventually("the rows are committed", MINUTE, || {
            (self.sql("reader", &body)?.1["rows"][0]["n"] == count).then_some(())
        });
    }

    pub fn tools(&self, token: &str) -> Vec<String> {
        let listed = self.rpc(MODERN, token, "tools/list", json!({}));
        let tools = listed["result"]["tools"].as_array().unwrap().iter();
        tools.map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
    }

    pub fn audit(&self) -> Vec<Value> {
        let output = frazil(&["mcp", "--check-audit", "--json", "-c", self.frazil.config.to_str().unwrap()]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = std::fs::read_to_string(self.lake.path("audit.jsonl")).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let checked: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(checked["lines"].as_u64().unwrap() <= lines.len() as u64);
        lines
    }
}

#[test]
fn every_tool_answers_in_both_eras() {
    let served = Served::start("mcp_tools", 300, &json!({}));
    served.await_rows(300);
    let hello = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}});
    assert_eq!(served.rpc(LEGACY, "reader", "initialize", hello)["result"]["protocolVersion"], LEGACY);
    let versions = served.rpc(MODERN, "reader", "server/discover", json!({}))["result"]["supportedVersions"].clone();
    assert!(versions.as_array().unwrap().contains(&json!(MODERN)), "{versions}");
    for era in [MODERN, LEGACY] {
        every_tool(&served, era);
    }
    let catalog = served.rpc(MODERN, "finder", "resources/read", json!({"uri": "lake://catalog"}));
    assert!(catalog["result"]["contents"][0]["text"].as_str().unwrap().contains("\"shop.orders\""));

    let refused = |tool: &str, arguments: Value| served.refused("reader", tool, &arguments);
    let wrong = refused("query_sql", json!({"sql": "SELECT * FROM shop.ordrs"}));
    assert_eq!((&wrong["code"], &wrong["did_you_mean"][0]), (&json!("unknown_table"), &json!("shop.orders")));
    let wrong = refused("query_sql", json!({"sql": "SELECT custmer_id FROM shop.orders"}));
    assert_eq!((&wrong["code"], &wrong["did_you_mean"][0]), (&json!("unknown_column"), &json!("customer_id")));
    let wrong = refused("query_sql", json!({"sql": "SELECT *\nFRM shop.orders"}));
    assert_eq!((&wrong["code"], &wrong["position"]["line"]), (&json!("invalid_sql"), &json!(2)), "{wrong}");
    for sql in ["DROP TABLE shop.orders", "DELETE FROM shop.orders", "SET a = 1"] {
        assert_eq!(refused("query_sql", json!({"sql": sql}))["code"], "not_a_query", "{sql}");
    }
    let begun = Instant::now();
    assert_eq!(refused("query_sql", json!({"sql": ENDLESS, "timeout_ms": 500}))["code"], "timeout");
    assert!(begun.elapsed() < Duration::from_secs(5));
    let wrong = refused("peek_topic", json!({"topic": "mcp-tols"}));
    assert_eq!((&wrong["code"], &wrong["did_you_mean"][0]), (&json!("unknown_topic"), &json!("mcp-tools")), "{wrong}");
    let wrong = refused("peek_topic", json!({"topic": "mcp-tools", "partition": 3}));
    assert!(wrong["message"].as_str().unwrap().contains("0 to 2"), "{wrong}");
}

fn every_tool(served: &Served, era: &str) {
    let call = |tool: &str, arguments: Value| served.call(era, tool, &arguments);
    let topic = &served.topic;
    let listed = call("list_datasets", json!({"pattern": "orders"}));
    let item = json!({"table": "shop.orders", "topics": [topic], "health": "ok"});
    assert_eq!(listed["datasets"][0], item);
    let described = call("describe_dataset", json!({"name": "shop.orders", "sample_rows": 2}));
    let price = described["columns"].as_array().unwrap().iter().find(|column| column["name"] == "price").unwrap();
    assert!(price["type"].as_str().unwrap().starts_with("decimal("), "{price}");
    assert_eq!(described["sample_rows"].as_array().unwrap().len(), 2);
    let rows = call("query_sql", json!({"sql": described["example_sql"]}));
    assert_eq!(rows["rows"][0]["order_id"], 299, "the newest first: {rows}");
    let offsets = json!({topic: {"0": 100, "1": 100, "2": 100}});
    assert_eq!(rows["as_of"]["shop.orders"]["offsets"], offsets);

    let seen = call("peek_topic", json!({"topic": topic, "max_records": 5}));
    let orders: Vec<i64> =
        seen["records"].as_array().unwrap().iter().map(|r| r["value"]["order_id"].as_i64().unwrap()).collect();
    assert_eq!(orders, [299, 298, 297, 296, 295]);
    assert_eq!(
        (&seen["records"][0]["value_encoding"], &seen["records"][0]["key"]),
        (&json!("avro"), &json!("customer-299"))
    );
    assert_eq!(
        (&seen["partitions"][1]["stable"], &seen["partitions"][1]["committed_to_table"]),
        (&json!(100), &json!(100))
    );
    let at = call("peek_topic", json!({"topic": topic, "partition": 1, "offset": 7, "max_records": 2}));
    assert_eq!((&at["records"][0]["id"], &at["returned"]), (&json!(format!("{topic}/1/7")), &json!(2)));
    let one = call("peek_topic", json!({"topic": topic, "start": "earliest", "key_equals": "customer-42"}));
    assert_eq!((&one["records"][0]["value"]["order_id"], &one["returned"]), (&json!(42), &json!(1)), "{one}");
    let some = call("peek_topic", json!({"topic": topic, "start": "earliest", "contains": "number 100 with"}));
    assert_eq!((&some["records"][0]["value"]["order_id"], &some["returned"]), (&json!(100), &json!(1)), "{some}");
    let late = call("peek_topic", json!({"topic": topic, "timestamp": "2039-01-01T00:00:00Z"}));
    assert!(late["warnings"].to_string().contains("behind the newest"), "{late}");

    let found = call("search", json!({"query": "number 100", "mode": "keyword", "filter": "_partition = 1"}));
    assert_eq!(found["hits"][0]["id"], format!("{topic}/1/33"), "{found}");
    assert!(found["hits"][0]["snippet"].as_str().unwrap().contains("leave number 100 with"), "{found}");

    let id = &at["records"][0]["id"];
    let record =
        call("get_records", json!({"ids": [id, format!("{topic}/0/4711")], "fields": ["order_id", "kafka_offset"]}));
    assert_eq!(
        record["records"][0]["record"],
        json!({"order_id": at["records"][0]["value"]["order_id"], "kafka_offset": 7})
    );
    assert_eq!(record["returned"], 1);
    let plan = call("explain_sql", json!({"sql": "SELECT count(*) FROM shop.orders WHERE order_id = 3"}));
    assert_eq!((&plan["tables"][0]["table"], &plan["tables"][0]["rows"]), (&json!("shop.orders"), &json!(300)));
    assert!(plan["plan"].to_string().contains("order_id") && plan["bytes_at_most"].as_u64() > Some(1000), "{plan}");

    let fresh = &call("get_freshness", json!({"names": ["shop.orders"], "response_format": "detailed"}))["datasets"][0];
    for name in ["records_not_committed", "records_not_visible"] {
        assert_eq!(fresh[name], 0, "{fresh}");
    }
    assert_eq!(fresh["partitions"][2]["high"], 100);
    let snapshots = call("list_snapshots", json!({"table": "shop.orders", "limit": 1}));
    let newest = &snapshots["snapshots"][0];
    assert_eq!(newest["rows"], 300, "{newest}");
    let then = json!({"sql": "SELECT count(*) AS n FROM shop.orders", "snapshot_id": newest["snapshot_id"]});
    assert_eq!(call("query_sql", then)["rows"][0]["n"], 300);
    let schema = call("get_schema", json!({"subject": format!("{topic}-value")}));
    assert_eq!(schema["format"], "avro");
    assert!(schema["schema"].to_string().contains("customer_id"), "{schema}");
    assert_eq!(call("get_schema", json!({"id": schema["id"]}))["schema"], schema["schema"]);
}

#[test]
fn each_token_may_do_its_own_and_everything_is_written_down() {
    let served = Served::start("mcp_scopes", 30, &json!({"calls_per_minute": 50, "allowed_hosts": ["frazil.example"]}));
    served.await_rows(30);
    assert_eq!(served.tools("looker"), ["peek_topic", "list_datasets", "get_freshness", "get_schema"]);
    let of_sql = served.tools("analyst");
    assert_eq!(of_sql.len(), 7);
    assert!(of_sql.iter().all(|tool| !["search", "peek_topic", "get_schema"].contains(&tool.as_str())), "{of_sql:?}");
    assert_eq!(served.refused("analyst", "peek_topic", &json!({"topic": served.topic}))["code"], "forbidden");
    assert_eq!(served.refused("looker", "query_sql", &json!({"sql": "SELECT 1"}))["code"], "forbidden");

    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}});
    let status = |token: &str, header: (&str, &str)| served.post(token, &[header], &list).unwrap().0;
    assert_eq!(status("nobody", ("x-none", "1")), 401);
    for wrong in [("host", "evil.example"), ("origin", "https://evil.example"), ("origin", "null")] {
        assert_eq!(status("reader", wrong), 403, "{wrong:?}");
    }
    for right in [("host", "frazil.example"), ("origin", "http://localhost:6274")] {
        assert_eq!(status("reader", right), 200, "{right:?}");
    }
    // The narrow scopes open no other door of the listener.
    let sql = |token: &str| served.sql(token, &json!({"sql": "SELECT 1 AS one"})).unwrap().0;
    assert_eq!((sql("analyst"), sql("looker"), sql("finder")), (200, 403, 403));

    let call = json!({"name": "list_datasets", "arguments": {}});
    let codes: Vec<Value> = (0..60)
        .map(|_| {
            served.rpc(MODERN, "finder", "tools/call", call.clone())["result"]["structuredContent"]["code"].clone()
        })
        .collect();
    assert_eq!(codes.iter().filter(|code| code.is_null()).count(), 50);
    assert!(codes[50..].iter().all(|code| code == "too_many_calls"), "{codes:?}");

    let mut verdicts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in served.audit() {
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        *verdicts.entry((text("principal"), text("verdict"))).or_default() += 1;
    }
    let count = |principal: &str, verdict: &str| verdicts.get(&(principal.to_owned(), verdict.to_owned())).copied();
    assert_eq!((count("finder", "ok"), count("finder", "too_many_calls")), (Some(50), Some(10)), "{verdicts:?}");
    assert_eq!((count("analyst", "forbidden"), count("looker", "forbidden")), (Some(1), Some(1)), "{verdicts:?}");
    assert_eq!((count("", "unauthorized"), count("reader", "turned_away")), (Some(1), Some(3)), "{verdicts:?}");

    let path = served.lake.path("audit.jsonl");
    let forged = std::fs::read_to_string(&path).unwrap().replacen("too_many_calls", "ok", 1);
    std::fs::write(&path, forged).unwrap();
    let output = frazil(&["mcp", "--check-audit", "-c", served.frazil.config.to_str().unwrap()]);
    assert!(!output.status.success(), "a changed line shows");
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not continue"), "{output:?}");
}

#[test]
fn a_query_that_nobody_waits_for_ends() {
    let served = Served::start("mcp_cancel", 300, &json!({"calls_at_once": 1}));
    served.await_rows(300);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "query_sql", "arguments": {"sql": ENDLESS}}});
    let client = reqwest::Client::builder().timeout(Duration::from_millis(700)).build().unwrap();
    let request = client.post(&served.url).bearer_auth("analyst-token").json(&body);
    let request =
        request.header("accept", "application/json, text/event-stream").header("mcp-protocol-version", LEGACY);
    assert!(block_on(async { request.send().await }).unwrap_err().is_timeout());
    eventually("the call is written down as cancelled", Duration::from_secs(2), || {
        let text = std::fs::read_to_string(served.lake.path("audit.jsonl")).unwrap_or_default();
        text.lines().any(|line| line.contains("\"verdict\":\"cancelled\"") && line.contains("analyst")).then_some(())
    });
    let answer = served.rpc(MODERN, "analyst", "tools/call", json!({"name": "list_datasets", "arguments": {}}));
    assert_eq!(answer["result"]["isError"], false, "its place is free: {answer}");
}

#[test]
fn standard_input_and_output_need_no_service() {
    let (kafka, registry, lake) = (Kafka::shared(), Registry::shared(), Lake::local("mcp_stdio"));
    create_topic(kafka, "mcp-stdio", 2, &[]);
    produce_orders(kafka, registry, "mcp-stdio", 2, 50);
    let tables = json!([{"topic": "mcp-stdio", "table": "shop.orders", "key": {"format": "string"}}]);
    let mut config = lake.config(kafka, registry, "mcp-stdio", &tables);
    config["mcp"] = json!({"audit_file": lake.path("audit.jsonl")});
    Frazil::until_caught_up(&lake.dir, &config, MINUTE);
    let producer = Producer::new(kafka);
    producer.send(
        "mcp-stdio",
        &Record { key: Some(b"k"), value: Some(b"plain text"), partition: Some(0), ..Record::default() },
    );
    producer.flush();

    let file = write_config(&lake.path("stdio.yaml"), &config);
    let mut child = Command::new(env!("CARGO_BIN_EXE_frazil"))
        .args(["mcp", "-c", file.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut input, mut output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()).lines());
    let mut ask = |method: &str, params: Value| {
        writeln!(input, "{}", json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})).unwrap();
        serde_json::from_str::<Value>(&output.next().unwrap().unwrap()).unwrap()["result"].clone()
    };
    let hello = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "it", "version": "1"}});
    assert_eq!(ask("initialize", hello)["serverInfo"]["name"], "frazil");
    let listed = ask("tools/list", json!({}));
    assert_eq!(listed["tools"].as_array().unwrap().len(), 9, "all but search: {listed}");
    let sql = json!({"name": "query_sql", "arguments": {"sql": "SELECT count(*) AS n FROM shop.orders"}});
    let answer = ask("tools/call", sql)["structuredContent"].clone();
    assert_eq!(answer["rows"][0]["n"], 50);
    assert!(answer["warnings"].to_string().contains("without the service"), "{answer}");
    let seen =
        ask("tools/call", json!({"name": "peek_topic", "arguments": {"topic": "mcp-stdio", "contains": "plain"}}));
    assert_eq!(seen["structuredContent"]["records"][0]["value"], "plain text", "{seen}");
    let fresh = ask("tools/call", json!({"name": "get_freshness", "arguments": {}}))["structuredContent"].clone();
    assert_eq!(fresh["datasets"][0]["rows_committed"], 50, "{fresh}");
    assert!(fresh["warnings"].to_string().contains("not known"), "{fresh}");
    drop(input);
    let status = eventually("it ends with its input", MINUTE, || child.try_wait().unwrap());
    assert!(status.success());
}
