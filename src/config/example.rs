//! Holds `config/example.yaml` to its word: it loads, states the defaults, and shows every setting of the schema.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::resolve::RegistryAuth;
use super::*;

fn no_env(_: &str) -> Option<String> {
    None
}

#[test]
fn the_example_loads_with_and_without_environment() {
    let config = Config::from_yaml(example(), &no_env).unwrap();
    assert_eq!(config.kafka.bootstrap_servers, "localhost:9092");
    assert_eq!(config.schema_registry.unwrap().auth, RegistryAuth::None);
    let config = Config::from_yaml(example(), &|name| (name == "SR_USER").then(|| "me".to_owned())).unwrap();
    assert!(matches!(config.schema_registry.unwrap().auth, RegistryAuth::Basic { username, .. } if username == "me"));
}

/// The example says what the defaults are, so a configuration without them means the same.
#[test]
fn the_example_states_the_defaults() {
    let least = "kafka: {bootstrap_servers: 'localhost:9092'}
schema_registry: {url: 'http://localhost:8081'}
catalog: {uri: 'sqlite://frazil/catalog.db', warehouse: frazil/warehouse}
tables: [{topic: orders, table: shop.orders, partition_by: [day(kafka_timestamp)], commit_interval: 1s}]";
    assert_eq!(Config::from_yaml(example(), &no_env).unwrap(), Config::from_yaml(least, &no_env).unwrap());
}

#[test]
fn the_example_shows_every_setting_of_the_schema() {
    let schema = json_schema();
    let mut settings = BTreeSet::new();
    collect_settings(&schema, &schema, "", &mut settings);
    assert!(settings.contains("tables[].metadata_columns.include") && settings.len() > 80, "{settings:?}");
    let mut shown = BTreeSet::new();
    for block in switched_on(example()) {
        let value: Value = yaml_serde::from_str(&block).expect(&block);
        collect_keys(&value, "", &mut shown);
    }
    let forgotten: Vec<_> = settings.difference(&shown).collect();
    assert!(forgotten.is_empty(), "not in config/example.yaml: {forgotten:?}");
}

/// The example as it is, and each of its top-level blocks with the settings that are off (`#name:`) instead of those of
/// the same name that are on.
fn switched_on(example: &str) -> Vec<String> {
    let mut documents: Vec<Vec<String>> = Vec::new();
    for line in example
        .lines()
        .filter(|line| !line.trim_start().starts_with("# ") && !line.trim().is_empty() && line.trim() != "#")
    {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim_start().trim_start_matches('#');
        let off = line.trim_start().starts_with('#');
        if indent == 0 && (!off || documents.is_empty()) {
            documents.push(Vec::new());
        }
        let document = documents.last_mut().expect("the first line is not indented");
        let name = text.split(':').next().unwrap_or_default();
        if off {
            let on = format!("{}{name}:", " ".repeat(indent));
            document.retain(|other| !other.starts_with(&on));
        }
        document.push(format!("{}{text}", " ".repeat(indent)));
    }
    documents.iter().map(|lines| lines.join("\n")).collect()
}

fn collect_keys(value: &Value, path: &str, keys: &mut BTreeSet<String>) {
    match value {
        Value::Mapping(entries) => {
            for (name, value) in entries {
                let name = name.as_str().unwrap_or("?");
                let key = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                collect_keys(value, &key, keys);
                keys.insert(key);
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| collect_keys(item, &format!("{path}[]"), keys)),
        _ => {}
    }
}

fn collect_settings(schema: &Json, root: &Json, path: &str, settings: &mut BTreeSet<String>) {
    if let Some(reference) = schema["$ref"].as_str() {
        collect_settings(root.pointer(&reference[1..]).expect(reference), root, path, settings);
    }
    for branch in schema["anyOf"].as_array().into_iter().flatten() {
        collect_settings(branch, root, path, settings);
    }
    if schema["items"].is_object() {
        collect_settings(&schema["items"], root, &format!("{path}[]"), settings);
    }
    for (name, setting) in schema["properties"].as_object().into_iter().flatten() {
        let key = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        assert!(setting["description"].is_string(), "setting `{key}` has no description");
        collect_settings(setting, root, &key, settings);
        settings.insert(key);
    }
}
