//! Schemas registered over HTTP, and records in Confluent's framing, encoded by a library that Frazil itself does not use.

use apache_avro::types::Value;
use apache_avro::{Decimal, Schema, to_avro_datum};
use serde_json::json;

use crate::services::Registry;
use crate::wait::block_on;

/// The order of twelve columns, about 142 bytes.
pub const ORDER: &str = include_str!("../../schemas/order.avsc");

/// Encodes values of one registered schema.
pub struct Encoder {
    /// The schema's id in the registry.
    pub id: u32,
    schema: Schema,
}

impl Encoder {
    /// Registers the schema under `subject`.
    #[track_caller]
    pub fn register(registry: &Registry, subject: &str, schema: &str) -> Self {
        Self { id: register(registry, subject, schema), schema: Schema::parse_str(schema).unwrap() }
    }

    /// The record's bytes: magic 0, the id, the value.
    #[track_caller]
    pub fn encode(&self, value: Value) -> Vec<u8> {
        framed(self.id, &to_avro_datum(&self.schema, value).unwrap())
    }
}

/// Registers a schema and gives its id.
#[track_caller]
pub fn register(registry: &Registry, subject: &str, schema: &str) -> u32 {
    let url = format!("{}/subjects/{subject}/versions", registry.url);
    let answer: serde_json::Value = block_on(async {
        let mut request = reqwest::Client::new().post(&url).json(&json!({"schema": schema}));
        if let Some((user, password)) = registry.user.and_then(|user| user.split_once(':')) {
            request = request.basic_auth(user, Some(password));
        }
        request.send().await.unwrap().json().await.unwrap()
    });
    let id = answer["id"].as_u64().unwrap_or_else(|| panic!("{url}: {answer}"));
    u32::try_from(id).unwrap()
}

/// `body` in Confluent's framing.
pub fn framed(id: u32, body: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], body].concat()
}

/// The `n`th order, for [`ORDER`]; different from all others in several columns.
pub fn order(n: i64) -> Value {
    let currencies = ["EUR", "USD", "GBP", "SEK", "JPY"];
    let currency = usize::try_from(n % 5).unwrap();
    let note = format!("please ring twice, then leave number {n} with the neighbours");
    let note = if n % 3 != 0 {
        Value::Union(1, Box::new(Value::String(note)))
    } else {
        Value::Union(0, Box::new(Value::Null))
    };
    let fields = [
        ("order_id", Value::Long(n)),
        ("customer_id", Value::Long(100_000 + n * 7919 % 5_000)),
        ("product", Value::String(format!("tall stoneware mug, hand thrown, glaze {:03}, set of {}", n % 997, n % 6 + 1))),
        ("quantity", Value::Int(i32::try_from(n % 9 + 1).unwrap())),
        ("price", Value::Decimal(Decimal::from((n * 31 % 1_000_000 - 500).to_be_bytes()))),
        ("currency", Value::Enum(u32::try_from(currency).unwrap(), currencies[currency].to_owned())),
        ("status", Value::String(["placed", "paid", "packed", "shipped", "returned"][currency].to_owned())),
        ("created_at", Value::TimestampMicros(1_767_225_600_000_000 + n * 1_000_003)),
        ("note", note),
        ("country", Value::String(["DE", "US", "GB", "SE", "JP"][currency].to_owned())),
        ("discount", Value::Double((n % 20) as f64 / 100.0)),
        ("express", Value::Boolean(n % 4 == 0)),
    ];
    Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
}
