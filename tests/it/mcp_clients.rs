//! The MCP server as the clients of others find it, in both eras of the protocol: the protocol's conformance suite, the
//! MCP Inspector, and the official Python client over HTTP and as the parent of `frazil mcp`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::mcp::{LEGACY, MODERN, Served};

/// A file below `tests`.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Runs a client that `node.sh` has.
fn node(served: &Served, client: &str, arguments: &[&str]) -> Output {
    Command::new(path("services/node.sh"))
        .args(["run", client])
        .args(arguments)
        // What the Inspector keeps from one run to the next.
        .env("MCP_STORAGE_DIR", served.lake.path("inspector"))
        .output()
        .unwrap()
}

/// What a client printed, which must have ended well.
#[track_caller]
fn printed(output: Output) -> String {
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}\n{text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn the_conformance_suite_finds_only_what_is_listed() {
    // The suite sends no token.
    let served = Served::open("mcp_conformance", 3);
    let list = path("fixtures/mcp_conformance.yaml");
    let suite = |scenarios: &[&str]| {
        let server = ["server", "--url", &served.url, "--expected-failures", list.to_str().unwrap()];
        printed(node(&served, "conformance", &[&server[..], scenarios].concat()))
    };
    // It fails where a check that is not listed fails or warns, and where one that is listed passes.
    let report = [LEGACY, MODERN].map(|era| suite(&["--requirements", era])).concat();
    // No requirement, since the suite's own server does not pass it yet.
    suite(&["--scenario", "http-header-validation", "--spec-version", MODERN]);
    // One that is listed and never met would be no news to the suite.
    let list = fs::read_to_string(&list).unwrap();
    let listed: Vec<&str> = list.lines().filter_map(|line| line.strip_prefix("  - ")).collect();
    assert!(!listed.is_empty());
    for check in listed {
        assert!(
            report.lines().any(|line| line.trim() == format!("~ {check}")),
            "`{check}` is listed and does not fail"
        );
    }
}

#[test]
fn the_inspector_lists_calls_and_reads() {
    let served = Served::start("mcp_inspector", 30, &json!({}));
    served.await_rows(30);
    for era in ["legacy", "modern"] {
        let run = |arguments: &[&str]| {
            let server =
                ["--cli", &served.url, "--protocol-era", era, "--header", "Authorization: Bearer reader-token"];
            node(&served, "mcp-inspector", &[&server[..], arguments].concat())
        };
        let ask = |arguments: &[&str]| serde_json::from_str::<Value>(&printed(run(arguments))).unwrap();
        // `--strict` fails on a schema that some clients are known to refuse.
        let listed = ask(&["--method", "tools/list", "--strict"]);
        let tools: Vec<&str> =
            listed["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert_eq!(tools, served.tools("reader"));
        let call = |sql: &str| run(&["--method", "tools/call", "--tool-name", "query_sql", "--tool-arg", sql]);
        let counted: Value =
            serde_json::from_str(&printed(call("sql=SELECT count(*) AS n FROM shop.orders WHERE order_id >= 10")))
                .unwrap();
        assert_eq!(counted["structuredContent"]["rows"], json!([{"n": 20}]), "{counted}");
        let refused = call("sql=SELECT custmer_id FROM shop.orders");
        assert!(!refused.status.success(), "a refusal is one to the Inspector too");
        let refused: Value = serde_json::from_slice(&refused.stdout).unwrap();
        assert_eq!(
            (&refused["isError"], &refused["structuredContent"]["code"]),
            (&json!(true), &json!("unknown_column"))
        );
        let read = ask(&["--method", "resources/read", "--uri", "lake://catalog"]);
        let catalog: Value = serde_json::from_str(read["contents"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(catalog["datasets"][0]["table"], "shop.orders", "{read}");
    }
}

/// What `tests/verify/agent.py` was answered, in each era.
#[track_caller]
fn agent(server: &[&str], calls: &[(&str, Value)]) -> [Value; 2] {
    let questions = json!({"calls": calls, "resources": ["lake://catalog", "lake://nothing"]});
    let mut python = Command::new(path("services/python.sh"));
    python.arg(path("verify/agent.py")).arg(questions.to_string()).args(server);
    let mut seen: Value = serde_json::from_str(&printed(python.output().unwrap())).unwrap();
    assert_eq!(seen.as_object().unwrap().len(), 2, "each era was spoken: {seen}");
    let seen = [LEGACY, MODERN].map(|era| seen[era].take());
    for (one, not_found) in seen.iter().zip([-32002, -32602]) {
        assert_eq!(one["server"], "frazil", "{one}");
        assert_eq!(one["listed"], json!(["lake://catalog", "lake://freshness", "lake://sql-dialect"]));
        let [catalog, nothing] = &one["resources"].as_array().unwrap()[..] else { panic!("two were asked for: {one}") };
        let text: Value = serde_json::from_str(catalog["text"].as_str().unwrap()).unwrap();
        assert_eq!(
            (&catalog["type"], &text["datasets"][0]["table"]),
            (&json!("application/json"), &json!("shop.orders"))
        );
        assert_eq!(*nothing, json!({"code": not_found, "data": {"uri": "lake://nothing"}}));
    }
    seen
}

#[test]
fn the_python_client_asks_over_http_and_over_pipes() {
    let served = Served::start("mcp_python", 300, &json!({}));
    served.await_rows(300);
    let sql = "SELECT count(*) AS n, sum(order_id) AS s FROM shop.orders";
    let both = [
        ("query_sql", json!({"sql": sql})),
        ("get_freshness", json!({"names": ["shop.orders"]})),
        ("query_sql", json!({"sql": "SELECT custmer_id FROM shop.orders"})),
    ];
    let check = |one: &Value| {
        assert_eq!(one["answers"][0]["rows"], json!([{"n": 300, "s": 44_850}]), "{one}");
        let fresh = &one["answers"][1]["datasets"][0];
        assert_eq!((&fresh["table"], &fresh["rows_committed"]), (&json!("shop.orders"), &json!(300)), "{one}");
        assert_eq!(one["answers"][2]["did_you_mean"][0], "customer_id", "{one}");
    };

    let search = ("search", json!({"query": "number 100", "mode": "keyword", "filter": "_partition = 1"}));
    let calls = [&both[..], &[search][..]].concat();
    for one in agent(&["--url", &served.url, "--token", "reader-token"], &calls) {
        assert_eq!(one["tools"], json!(served.tools("reader")));
        check(&one);
        assert_eq!(one["answers"][3]["hits"][0]["id"], "mcp-python/1/33", "{one}");
    }
    // Beside the service, of which it knows what is committed, and whose index it has not.
    let config = served.frazil.config.to_str().unwrap();
    for one in agent(&["--command", env!("CARGO_BIN_EXE_frazil"), "mcp", "-c", config], &both) {
        let all_but_search: Vec<String> = served.tools("reader").into_iter().filter(|tool| tool != "search").collect();
        assert_eq!(one["tools"], json!(all_but_search));
        check(&one);
    }
    // Both have written down what they were asked, in one chain.
    for principal in ["reader", "stdio"] {
        let counts =
            served.audit().iter().filter(|line| line["principal"] == principal && line["tool"] == "query_sql").count();
        assert_eq!(counts, 4, "two in each era, by `{principal}`");
    }
}
