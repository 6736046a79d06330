//! The routes over a catalog of the test's own: the endpoints of the specification one by one, shapes, refusals.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use axum::http::HeaderMap;
use axum::http::header::{ETAG, IF_NONE_MATCH};
use bytes::Bytes;
use tower::ServiceExt;

use super::*;
use crate::error::{Error, Result};
use crate::model::ids::TableName;
use crate::ports::{Properties, StoredMetadata};

/// All of the specification's endpoints but `config` and the one for OAuth.
const SPECIFIED: [&str; 34] = [
    "GET /v1/{prefix}/namespaces",
    "POST /v1/{prefix}/namespaces",
    "GET /v1/{prefix}/namespaces/{namespace}",
    "HEAD /v1/{prefix}/namespaces/{namespace}",
    "DELETE /v1/{prefix}/namespaces/{namespace}",
    "POST /v1/{prefix}/namespaces/{namespace}/properties",
    "GET /v1/{prefix}/namespaces/{namespace}/tables",
    "POST /v1/{prefix}/namespaces/{namespace}/tables",
    "GET /v1/{prefix}/namespaces/{namespace}/functions",
    "GET /v1/{prefix}/namespaces/{namespace}/functions/{function}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}/plan/{plan-id}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/tasks",
    "POST /v1/{prefix}/namespaces/{namespace}/register",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/tables/{table}",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/unregister",
    "GET /v1/{prefix}/namespaces/{namespace}/tables/{table}/credentials",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/sign",
    "POST /v1/{prefix}/namespaces/{namespace}/tables/{table}/metrics",
    "POST /v1/{prefix}/tables/rename",
    "POST /v1/{prefix}/transactions/commit",
    "GET /v1/{prefix}/namespaces/{namespace}/views",
    "POST /v1/{prefix}/namespaces/{namespace}/views",
    "GET /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "HEAD /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "POST /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "DELETE /v1/{prefix}/namespaces/{namespace}/views/{view}",
    "POST /v1/{prefix}/views/rename",
    "POST /v1/{prefix}/namespaces/{namespace}/register-view",
    "GET /v1/{prefix}/nothing",
];

/// Written with spaces and a field of tomorrow, to see that it is passed on as it is.
const METADATA: &str = r#"{ "format-version" : 2, "current-snapshot-id": 2, "tomorrow": 1.50,
  "refs": {"main": {"snapshot-id": 2, "type": "branch"}}, "snapshots": [{"snapshot-id": 1}, {"snapshot-id": 2}]}"#;

/// A catalog with these tables; `away` does not answer.
#[derive(Clone, Default)]
struct Fake {
    tables: Vec<TableName>,
    away: bool,
}

impl Fake {
    fn of(tables: &[(&[&str], &str)]) -> Self {
        let table = |(namespace, name): &(&[&str], &str)| TableName {
            namespace: namespace.iter().map(|level| (*level).to_owned()).collect(),
            name: (*name).to_owned(),
        };
        Self { tables: tables.iter().map(table).collect(), away: false }
    }

    fn answers(&self) -> Result<()> {
        if self.away { Err(Error::unavailable("the database is away")) } else { Ok(()) }
    }
}

#[async_trait::async_trait]
impl CatalogView for Fake {
    async fn namespaces(&self) -> Result<BTreeMap<Vec<String>, Properties>> {
        self.answers()?;
        let owner = Properties::from([("owner".to_owned(), "ann".to_owned())]);
        Ok(self.tables.iter().map(|table| (table.namespace.clone(), owner.clone())).collect())
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.answers().map(|()| self.tables.clone())
    }

    async fn metadata_location(&self, table: &TableName) -> Result<Option<String>> {
        self.answers()?;
        Ok(self.tables.contains(table).then(|| format!("s3://lake/{table}/1.metadata.json")))
    }

    async fn metadata(&self, table: &TableName) -> Result<Option<StoredMetadata>> {
        let location = self.metadata_location(table).await?;
        Ok(location.map(|location| StoredMetadata { location, json: Bytes::from_static(METADATA.as_bytes()) }))
    }

    async fn access(&self, location: &str) -> Result<Properties> {
        assert!(location.starts_with("s3://lake/"), "{location}");
        Ok(Properties::from([("client.region".to_owned(), "eu-north-1".to_owned())]))
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("{} is answered with `{}`", self.status, self.text))
    }

    /// Type of a refusal, whose body must have the specification's shape; nothing where there is no body, as for `HEAD`.
    #[track_caller]
    fn refusal(&self) -> String {
        if self.text.is_empty() {
            return String::new();
        }
        let body = self.json();
        assert_eq!(body["error"]["code"], self.status, "{body}");
        assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
        body["error"]["type"].as_str().unwrap().to_owned()
    }

    fn tag(&self) -> &str {
        self.headers[ETAG].to_str().unwrap()
    }
}

async fn ask_with(fake: &Fake, endpoint: &str, headers: &[(&str, &str)]) -> Answer {
    let (method, path) = endpoint.split_once(' ').unwrap();
    let options = Options { warehouses: vec!["frazil".to_owned(), "s3://lake/warehouse/".to_owned()] };
    let routes = routes(Arc::new(fake.clone()), options);
    let request = Request::builder().method(method).uri(format!("http://h{PATH}{path}"));
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let answer = routes.oneshot(request.body(Body::from("{}")).unwrap()).await.unwrap();
    let (parts, body) = answer.into_parts();
    let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().to_vec()).unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, text }
}

async fn ask(fake: &Fake, endpoint: &str) -> Answer {
    ask_with(fake, endpoint, &[]).await
}

fn shop() -> Fake {
    Fake::of(&[(&["shop"], "orders"), (&["shop"], "payments"), (&["shop", "eu"], "orders"), (&["deep", "er"], "t")])
}

#[tokio::test]
async fn what_is_listed_answers_and_all_else_is_refused() {
    let fake = shop();
    let listed = ask(&fake, "GET /v1/config").await.json()["endpoints"].clone();
    let listed: Vec<&str> = listed.as_array().unwrap().iter().map(|endpoint| endpoint.as_str().unwrap()).collect();
    assert!(listed.iter().chain(&WRITES).all(|endpoint| SPECIFIED.contains(endpoint)));
    for endpoint in SPECIFIED {
        let asked = endpoint.replace("/{prefix}", "").replace("{namespace}", "shop").replace("{table}", "orders");
        let answer = ask(&fake, &asked).await;
        let expected = match listed.contains(&endpoint) {
            true if endpoint == "HEAD /v1/{prefix}/namespaces/{namespace}/views/{view}" => "404 ",
            true if endpoint.ends_with("/{view}") => "404 NoSuchViewException",
            true if endpoint.starts_with("HEAD") || endpoint.ends_with("/metrics") => "204",
            true => "200",
            false if WRITES.contains(&endpoint) => "403 ForbiddenException",
            false => "404 NotFoundException",
        };
        let found = match answer.status {
            400.. => format!("{} {}", answer.status, answer.refusal()),
            status => status.to_string(),
        };
        assert_eq!(found, expected, "{endpoint}");
    }
    assert!(ask(&fake, "POST /v1/transactions/commit").await.text.contains("SqlCatalog"), "it says what to do");
}

#[tokio::test]
async fn the_catalog_goes_by_several_names() {
    let fake = shop();
    for asked in ["", "?warehouse=", "?warehouse=frazil", "?warehouse=s3%3A%2F%2Flake%2Fwarehouse"] {
        let config = ask(&fake, &format!("GET /v1/config{asked}")).await.json();
        assert_eq!((&config["defaults"], &config["overrides"]), (&json!({}), &json!({})), "{asked}");
    }
    let refused = ask(&fake, "GET /v1/config?warehouse=other").await;
    assert_eq!((refused.status, refused.refusal().as_str()), (404, "NoSuchWarehouseException"));
    assert!(refused.text.contains("`frazil`"), "{}", refused.text);
}

#[tokio::test]
async fn namespaces_are_listed_level_by_level() {
    let fake = shop();
    for (asked, expected) in [
        ("", json!([["deep"], ["shop"]])),
        ("?parent=", json!([["deep"], ["shop"]])),
        ("?parent=shop", json!([["shop", "eu"]])),
        ("?parent=deep", json!([["deep", "er"]])),
        ("?parent=deep%1Fer", json!([])),
    ] {
        let body = ask(&fake, &format!("GET /v1/namespaces{asked}")).await.json();
        assert_eq!(body, json!({"namespaces": expected, "next-page-token": null}), "{asked}");
    }
    let first = ask(&fake, "GET /v1/namespaces?pageToken=&pageSize=1").await.json();
    assert_eq!(first["namespaces"], json!([["deep"]]));
    let token = first["next-page-token"].as_str().unwrap();
    let second = ask(&fake, &format!("GET /v1/namespaces?pageToken={token}&pageSize=1")).await.json();
    assert_eq!(second, json!({"namespaces": [["shop"]], "next-page-token": null}));

    let namespace = ask(&fake, "GET /v1/namespaces/shop%1Feu").await.json();
    assert_eq!(namespace, json!({"namespace": ["shop", "eu"], "properties": {"owner": "ann"}}));
    let above = ask(&fake, "GET /v1/namespaces/deep").await.json();
    assert_eq!(above, json!({"namespace": ["deep"], "properties": {}}), "it is there, though nobody made it");
}

#[tokio::test]
async fn tables_are_listed_by_pages() {
    let fake = shop();
    let order = |name: &str| json!({"namespace": ["shop"], "name": name});
    let all = ask(&fake, "GET /v1/namespaces/shop/tables?pageSize=1").await.json();
    assert_eq!(all, json!({"identifiers": [order("orders"), order("payments")], "next-page-token": null}));
    let first = ask(&fake, "GET /v1/namespaces/shop/tables?pageToken=&pageSize=1").await.json();
    assert_eq!(first["identifiers"], json!([order("orders")]));
    let token = first["next-page-token"].as_str().unwrap();
    let second = ask(&fake, &format!("GET /v1/namespaces/shop/tables?pageSize=1&pageToken={token}")).await.json();
    assert_eq!(second, json!({"identifiers": [order("payments")], "next-page-token": null}));
    assert_eq!(ask(&fake, "GET /v1/namespaces/deep/tables").await.json()["identifiers"], json!([]));
    assert_eq!(ask(&fake, "GET /v1/namespaces/shop/views").await.json()["identifiers"], json!([]));
}

#[tokio::test]
async fn a_table_is_loaded_as_it_is_stored() {
    let answer = ask(&shop(), "GET /v1/namespaces/shop%1Feu/tables/orders").await;
    assert_eq!(answer.headers["content-type"], "application/json");
    assert!(answer.text.contains(METADATA), "byte for byte: {}", answer.text);
    let body = answer.json();
    assert_eq!(body["metadata-location"], "s3://lake/shop.eu.orders/1.metadata.json");
    assert_eq!(body["config"], json!({"client.region": "eu-north-1"}));
    let all = ask(&shop(), "GET /v1/namespaces/shop%1Feu/tables/orders?snapshots=all").await;
    assert_eq!((all.text.as_str(), all.tag()), (answer.text.as_str(), answer.tag()));
    let refs = ask(&shop(), "GET /v1/namespaces/shop%1Feu/tables/orders?snapshots=refs").await;
    assert_eq!(refs.json()["metadata"]["snapshots"], json!([{"snapshot-id": 2}]));
    assert_ne!(refs.tag(), answer.tag());
}

#[tokio::test]
async fn what_a_client_has_already_is_not_sent_again() {
    let (fake, orders) = (shop(), "GET /v1/namespaces/shop/tables/orders");
    let first = ask(&fake, orders).await;
    let payments = ask(&fake, "GET /v1/namespaces/shop/tables/payments").await;
    let tag = first.tag();
    for (sent, status) in [
        (tag.to_owned(), 304),
        (format!("W/{tag}"), 304),
        (format!("\"other\", {tag}"), 304),
        ("*".to_owned(), 304),
        (tag.trim_matches('"').to_owned(), 200),
        (payments.tag().to_owned(), 200),
    ] {
        let answer = ask_with(&fake, orders, &[(IF_NONE_MATCH.as_str(), &sent)]).await;
        assert_eq!(answer.status, status, "{sent}");
        assert_eq!(answer.tag(), tag);
        assert_eq!(answer.text.is_empty(), status == 304);
    }
    let refs = ask_with(&fake, &format!("{orders}?snapshots=refs"), &[(IF_NONE_MATCH.as_str(), tag)]).await;
    assert_eq!(refs.status, 200, "it is another answer");
}

#[tokio::test]
async fn what_is_not_there_or_makes_no_sense_is_refused_by_its_type() {
    let fake = shop();
    for (asked, status, kind) in [
        ("GET /v1/namespaces/none", 404, "NoSuchNamespaceException"),
        ("HEAD /v1/namespaces/none", 404, ""),
        ("GET /v1/namespaces/shop.eu", 404, "NoSuchNamespaceException"),
        ("GET /v1/namespaces/shop%1F", 404, "NoSuchNamespaceException"),
        ("GET /v1/namespaces?parent=none", 404, "NoSuchNamespaceException"),
        ("GET /v1/namespaces/none/tables", 404, "NoSuchNamespaceException"),
        ("GET /v1/namespaces/none/views", 404, "NoSuchNamespaceException"),
        ("GET /v1/namespaces/shop/tables/none", 404, "NoSuchTableException"),
        ("HEAD /v1/namespaces/shop/tables/none", 404, ""),
        ("GET /v1/namespaces/none/tables/orders", 404, "NoSuchTableException"),
        ("GET /v1/namespaces?pageToken=!", 400, "BadRequestException"),
        ("GET /v1/namespaces/shop/tables?pageSize=0", 400, "BadRequestException"),
        ("GET /v1/namespaces/shop/tables?pageSize=many", 400, "BadRequestException"),
        ("GET /v1/namespaces/shop/tables/orders?snapshots=some", 400, "BadRequestException"),
        ("GET /v1/namespaces/%FF", 400, "BadRequestException"),
        ("GET /v2/config", 404, "NotFoundException"),
        ("PUT /v1/config", 404, "NotFoundException"),
        ("GET ", 404, "NotFoundException"),
    ] {
        let answer = ask(&fake, asked).await;
        assert_eq!((answer.status, answer.refusal().as_str()), (status, kind), "{asked}");
    }
}

#[tokio::test]
async fn names_come_in_every_clients_spelling() {
    let fake = Fake::of(&[(&["a b", "c/d"], "e+f g%")]);
    for spelling in ["a%20b%1Fc%2Fd/tables/e%2Bf%20g%25", "a+b%1fc%2fd/tables/e%2bf+g%25"] {
        let answer = ask(&fake, &format!("HEAD /v1/namespaces/{spelling}?snapshots=all")).await;
        assert_eq!(answer.status, 204, "{spelling}");
    }
}

#[tokio::test]
async fn a_catalog_that_is_away_may_be_asked_again() {
    let fake = Fake { away: true, ..shop() };
    for asked in ["/v1/namespaces", "/v1/namespaces/shop/tables", "/v1/namespaces/shop/tables/orders"] {
        let answer = ask(&fake, &format!("GET {asked}")).await;
        assert_eq!((answer.status, answer.refusal().as_str()), (503, "ServiceUnavailableException"), "{asked}");
    }
    assert_eq!(ask(&fake, "GET /v1/config").await.status, 200);
}
