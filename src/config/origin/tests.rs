//! Topics by name and by pattern, and the names of a route's tables.

use crate::config::TableConfig;
use crate::config::tests::{check_mistake, load};

#[test]
fn every_mistake_in_a_table_s_origin_names_its_key_and_remedy() {
    let cases = [
        (
            "tables: [{topic: a, table: 'x_{record_name}'}, {topic: a, table: 'y_{record_name}'}]",
            "setting `tables[1].table`: topic `a` is spread over tables by `tables[0]` already; keep one of them",
        ),
        (
            "tables: [{topic: a, topic_pattern: b}]",
            "setting `tables[0].topic_pattern`: `topic` or `topics` is written too; keep one of them",
        ),
        (
            "tables: [{topic: a, table: 'x_{name}'}]",
            "setting `tables[0].table`: `{name}` is no part of a name; write `{topic}`, `{record_name}`, `{header:name}` or `{field:path}`",
        ),
        (
            "tables: [{topic: a, table: 'x_{record_name}_{header:y}'}]",
            "setting `tables[0].table`: `x_{record_name}_{header:y}` has several parts; keep one, beside `{topic}`",
        ),
        (
            "tables: [{topic: a, table: '{record_name}', value: {format: json}}]",
            "setting `tables[0].value.format`: `{record_name}` is found in the schema registry; write format `auto` or `registry`",
        ),
        (
            "tables: [{topic: a, table: '{header:y}.x'}]",
            "setting `tables[0].table`: the namespace is the same for all tables; use the value behind the last dot",
        ),
    ];
    for (yaml, expected) in cases {
        check_mistake(yaml, expected);
    }
}

#[test]
fn patterns_take_the_topics_that_no_other_table_names() {
    let yaml = "tables: [{topic: shop.orders}, {topic_pattern: '^shop[.]', table: 'raw.{topic}'}, \
                {topic_pattern: '-eu$|-us$', table: pay.all}]";
    let config = load(yaml).unwrap();
    assert!(config.require_tables().is_ok() && config.tables.len() == 1);
    let topics = ["shop.orders", "shop.items", "workshop.a", "pay-eu", "pay-us", "__shop.x"];
    let tables = |topics: &[&str]| {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let all = config.with_topics(&topics).unwrap().tables;
        all.iter().map(|table| (table.table.to_string(), table.topics.join(" "))).collect::<Vec<_>>()
    };
    let pair = |table: &str, topics: &str| (table.to_owned(), topics.to_owned());
    assert_eq!(
        tables(&topics),
        [
            pair("lake.shop_orders", "shop.orders"),
            pair("raw.shop_items", "shop.items"),
            pair("pay.all", "pay-eu pay-us")
        ]
    );
    assert_eq!(tables(&[]), [pair("lake.shop_orders", "shop.orders")]);
    // One topic or many, the table is the same one, and tells its rows apart.
    let one = config.with_topics(&["pay-eu".to_owned()].into()).unwrap();
    let two = config.with_topics(&["pay-eu".to_owned(), "pay-us".to_owned()].into()).unwrap();
    assert_eq!(one.tables[1].mapping(), two.tables[1].mapping());
    assert!(one.tables[1].has_several_topics());
    let clash = config.with_topics(&["shop.a.b".to_owned(), "shop.a_b".to_owned()].into()).unwrap_err();
    assert_eq!(
        clash.to_string(),
        "setting `tables[1].table`: table `raw.shop_a_b` belongs to `tables[1]` already; name another, or list the topics together under `topics`"
    );
}

#[test]
fn a_route_names_its_tables_by_its_values() {
    let config =
        load("schema_registry: {url: 'http://r'}\ntables: [{topic: a.b, table: 'shop.x_{record_name}'}, {topic: c, table: '{header:to}'}]").unwrap();
    let [by_name, by_header] = config.tables.as_slice() else { panic!() };
    assert_eq!(by_name.table.to_string(), "shop.x__unrouted");
    assert_eq!(by_header.table.to_string(), "lake.c__unrouted");
    let name = |table: &TableConfig, value: &str, apart| {
        table.route.as_ref().unwrap().table(value, apart).unwrap().to_string()
    };
    assert_eq!(name(by_name, "com.acme.Order", false), "shop.x_Order");
    assert_eq!(name(by_name, "com.acme.Order", true), "shop.x_Order_02a999");
    assert_eq!(name(by_header, "eu-west", false), "lake.eu_west");
    let long = name(by_header, &"y".repeat(300), false);
    assert!(long.starts_with(&format!("lake.{}_", "y".repeat(100))) && long.len() == 112, "{long}");
    // The tables of values are made as the entry says.
    let of_value = by_name.of_value("shop.x_Order".parse().unwrap(), "com.acme.Order");
    let differs: Vec<_> =
        of_value.mapping().into_iter().filter(|(name, _)| !by_name.mapping().contains_key(name)).collect();
    assert_eq!(differs, [("frazil.mapping.route_value".to_owned(), "com.acme.Order".to_owned())]);
}
