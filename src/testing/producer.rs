//! Records for the simulation's topics: text or Avro, some that cannot be rows, some without value.

use std::sync::Arc;

use super::broker::{Fate, Record};
use super::scenario::Scenario;
use super::world::{World, lock};
use crate::decode::layout::Tombstones;
use crate::pipeline::event::OnError;
use crate::ports::{RegisteredSchema, SchemaFormat};

/// The schema that is there from the start: `id`.
pub const FIRST_SCHEMA: u32 = 1;
/// The schema that comes later: `id` and `extra`.
const SECOND_SCHEMA: u32 = 2;
/// Schemas that are registered late have ids from here on.
const LATE_SCHEMAS: u32 = 900;
/// No registry has this schema.
const NO_SCHEMA: u32 = 777;

const FIRST: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"}]}"#;
const SECOND: &str = r#"{"type":"record","name":"R","fields":[{"name":"id","type":"long"},
    {"name":"extra","type":["null","string"],"default":null}]}"#;

/// Makes records.
#[derive(Debug, Default)]
pub struct Producer {
    serial: i64,
    evolved: bool,
}

/// Registers a schema under an id.
pub fn register(world: &World, id: u32) {
    let text = if id == SECOND_SCHEMA { SECOND } else { FIRST }.to_owned();
    let schema = RegisteredSchema { id, format: SchemaFormat::Avro, text, references: Vec::new() };
    lock(&world.schemas).insert(id, Arc::new(schema));
}

impl Producer {
    /// The next record.
    pub fn record(&mut self, world: &World, scenario: &Scenario) -> Record {
        self.serial += 1;
        let serial = self.serial;
        let mut random = world.random();
        let bad = random.per_mille(scenario.bad_per_mille);
        let tombstone = random.per_mille(40);
        self.evolved |= random.per_mille(10);
        let (second, text) = (self.evolved && random.per_mille(600), random.per_mille(500));
        drop(random);
        let (value, fate) = match (bad, tombstone) {
            (true, _) => Self::bad(serial, scenario, text),
            (false, true) if scenario.spec.layout.tombstones == Tombstones::Keep => (None, Fate::Row(None, None)),
            (false, true) => (None, Fate::Reject),
            (false, false) if scenario.avro => {
                let extra = (second && text).then(|| format!("x-{serial}"));
                let id = if second { SECOND_SCHEMA } else { FIRST_SCHEMA };
                if !lock(&world.schemas).contains_key(&id) {
                    register(world, id);
                }
                let mut value = framed(id, serial);
                if second {
                    put_extra(&mut value, extra.as_deref());
                }
                (Some(value), Fate::Row(Some(serial.to_string()), extra))
            }
            (false, false) => (Some(format!("v-{serial}").into_bytes()), Fate::Row(Some(format!("v-{serial}")), None)),
        };
        Record { key: Some(b"k".to_vec()), value, timestamp_ms: world.clock.now_ms(), serial, fate }
    }

    fn bad(serial: i64, scenario: &Scenario, other: bool) -> (Option<Vec<u8>>, Fate) {
        if !scenario.avro {
            return (Some(vec![0xff, 0xfe]), Fate::Reject);
        }
        if scenario.spec.settings.on_error == OnError::Suspend {
            let id = LATE_SCHEMAS + (serial % 4) as u32;
            return (Some(framed(id, serial)), Fate::RejectUntilRegistered(id, serial.to_string()));
        }
        let value = if other { framed(NO_SCHEMA, serial) } else { framed(FIRST_SCHEMA, serial)[..5].to_vec() };
        (Some(value), Fate::Reject)
    }
}

/// Registers what late records need; the operator's remedy for a table that was suspended because of them.
pub fn register_late(world: &World) {
    (0..4).for_each(|n| register(world, LATE_SCHEMAS + n));
}

fn framed(id: u32, serial: i64) -> Vec<u8> {
    let mut value = vec![0];
    value.extend(id.to_be_bytes());
    put_long(&mut value, serial);
    value
}

fn put_extra(value: &mut Vec<u8>, extra: Option<&str>) {
    put_long(value, i64::from(extra.is_some()));
    if let Some(extra) = extra {
        put_long(value, extra.len() as i64);
        value.extend(extra.as_bytes());
    }
}

fn put_long(value: &mut Vec<u8>, number: i64) {
    let mut rest = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while rest >= 0x80 {
        value.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    value.push(rest as u8);
}
