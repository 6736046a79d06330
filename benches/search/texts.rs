//! Short texts of English words, different from each other, and the topic that they are in.

use apache_avro::types::Value as Avro;

use crate::avro::Encoder;
use crate::kafka::{Producer, Record, create_topic};
use crate::services::{Kafka, Registry};

const SCHEMA: &str = r#"{"type": "record", "name": "Text", "fields": [{"name": "n", "type": "long"}, {"name": "text", "type": "string"}]}"#;

/// Partitions of the topic.
pub const PARTITIONS: i64 = 4;

/// Words of this project's own pages.
pub struct Texts {
    words: Vec<&'static str>,
}

impl Texts {
    pub fn new() -> Self {
        let pages = [include_str!("../../README.md"), include_str!("../../ARCHITECTURE.md")];
        let all = pages.into_iter().flat_map(|page| page.split(|c: char| !c.is_ascii_alphabetic()));
        let mut words: Vec<&str> = all.filter(|word| word.len() > 2).collect();
        words.sort_unstable();
        words.dedup();
        Self { words }
    }

    /// The `n`th text: ten words, about 60 bytes; always the same.
    pub fn text(&self, n: u64) -> String {
        let mut state = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0xD1B5_4A32_D192_ED03;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            self.words[usize::try_from(state % self.words.len() as u64).unwrap()]
        };
        (0..10).map(|_| next()).collect::<Vec<_>>().join(" ")
    }
}

/// A topic of texts.
pub struct Topic {
    pub name: &'static str,
    encoder: Encoder,
    producer: Producer,
}

impl Topic {
    pub fn new(kafka: &Kafka, registry: &Registry, name: &'static str) -> Self {
        create_topic(kafka, name, i32::try_from(PARTITIONS).unwrap(), &[]);
        let encoder = Encoder::register(registry, &format!("{name}-value"), SCHEMA);
        Self { name, encoder, producer: Producer::with(kafka, &[("linger.ms", "2")]) }
    }

    /// Record `n` is the `n / PARTITIONS`th of partition `n % PARTITIONS`.
    pub fn send(&self, n: i64, text: String) {
        let value = vec![("n".to_owned(), Avro::Long(n)), ("text".to_owned(), Avro::String(text))];
        let value = self.encoder.encode(Avro::Record(value));
        let partition = Some(i32::try_from(n % PARTITIONS).unwrap());
        self.producer.send(self.name, &Record { value: Some(&value), partition, ..Record::default() });
    }

    pub fn flush(&self) {
        self.producer.flush();
    }
}
