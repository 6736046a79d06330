//! The generated records: which topic comes next, what is in it, and when it happened. Deterministic from a seed;
//! does not send anything.

use super::avro::Encoder;
use super::random::Random;
use super::text::{self, LOG_ERRORS, LOG_NORMAL, LOG_WARNINGS, NOTES, PRODUCTS, TROUBLES};

/// A topic of the demo and the table that is made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Name.
    pub name: &'static str,
    /// The table's full name.
    pub table: &'static str,
    /// Partitions.
    pub partitions: i32,
    /// The key's format, as the configuration calls it.
    pub key_format: &'static str,
    /// The Avro schema of its values.
    pub schema: &'static str,
    /// The table's `index` in the configuration; `None`: it is not searched.
    pub index: Option<&'static str>,
}

impl Topic {
    /// The subject under which the schema of its values is registered.
    #[must_use]
    pub fn subject(&self) -> String {
        format!("{}-value", self.name)
    }
}

/// All topics, in the order of [`Generator::new`]'s schema ids.
pub const TOPICS: [Topic; 4] = [
    Topic {
        name: "orders",
        table: "shop.orders",
        partitions: 4,
        key_format: "none",
        schema: include_str!("../../schemas/order.avsc"),
        index: None,
    },
    Topic {
        name: "payments",
        table: "shop.payments",
        partitions: 2,
        key_format: "string",
        schema: include_str!("../../schemas/payment.avsc"),
        index: None,
    },
    Topic {
        name: "tickets",
        table: "support.tickets",
        partitions: 1,
        key_format: "none",
        schema: include_str!("../../schemas/ticket.avsc"),
        index: Some(r#"{text: "{title}\n{body}", filters: [severity, product]}"#),
    },
    Topic {
        name: "logs",
        table: "ops.logs",
        partitions: 4,
        key_format: "none",
        schema: include_str!("../../schemas/log.avsc"),
        index: None,
    },
];

const COUNTRIES: [&str; 10] = ["DE", "FR", "US", "GB", "SE", "JP", "PT", "PL", "IT", "AT"];
const STATUSES: [&str; 4] = ["placed", "confirmed", "shipped", "cancelled"];
const PAYMENT_STATUSES: [&str; 4] = ["captured", "captured", "authorised", "declined"];
const SERVICES: [&str; 6] = ["checkout", "inventory", "payments", "search", "shipping", "notifications"];
const CHANNELS: [&str; 3] = ["web", "mobile", "store"];
/// Orders count from here, so that an order id looks like one.
const FIRST_ORDER_ID: i64 = 1_000_000;
/// Customers that order, pay and complain.
const CUSTOMERS: u64 = 50_000;
/// Payments are for one of the newest orders.
const UNPAID_ORDERS: u64 = 200;

/// A generated record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Topic.
    pub topic: &'static str,
    /// Partition.
    pub partition: i32,
    /// Key; `None` where records of the topic have none.
    pub key: Option<Vec<u8>>,
    /// Value: Avro in the registry's framing.
    pub value: Vec<u8>,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    /// Headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
}

/// Makes one record after the other, without end.
#[derive(Debug, Clone)]
pub struct Generator {
    random: Random,
    schema_ids: [u32; 4],
    now_us: i64,
    step_us: i64,
    orders: i64,
    payments: i64,
    tickets: i64,
}

impl Generator {
    /// The first record happens at `first_ms`, each further one `step_us` later. `schema_ids`: as [`TOPICS`].
    #[must_use]
    pub fn new(seed: u64, schema_ids: [u32; 4], first_ms: i64, step_us: i64) -> Self {
        Self {
            random: Random::new(seed),
            schema_ids,
            now_us: first_ms * 1000,
            step_us,
            orders: 0,
            payments: 0,
            tickets: 0,
        }
    }

    /// Lets the next record happen no earlier than at `now_ms`.
    pub fn not_before(&mut self, now_ms: i64) {
        self.now_us = self.now_us.max(now_ms * 1000);
    }

    /// The next record.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "there is always one, so nobody should have to unwrap it")]
    pub fn next(&mut self) -> Record {
        // The first record is an order: payments and tickets refer to one.
        let draw = if self.orders == 0 { 0 } else { self.random.below(100) };
        let record = match draw {
            0..40 => self.order(),
            40..65 => self.payment(),
            65..70 => self.ticket(),
            _ => self.log(),
        };
        self.now_us += self.step_us;
        record
    }

    fn order(&mut self) -> Record {
        let order_id = FIRST_ORDER_ID + self.orders;
        self.orders += 1;
        let random = &mut self.random;
        let customer_id = customer(random);
        let product = random.pick(&PRODUCTS);
        let note = (random.below(4) > 0).then(|| {
            let mut note = String::new();
            text::fill(random.pick(&NOTES), random, product, &mut note);
            note
        });
        let mut value = Encoder::framed(self.schema_ids[0]);
        value.long(order_id).long(customer_id).string(product).long(1 + below(random, 5));
        value.decimal(499 + below(random, 60_000)).long(currency_of(order_id)).string(random.pick(&STATUSES));
        value.long(self.now_us).optional(note.as_deref(), |value, note| {
            value.string(note);
        });
        let discount = [0.0, 0.0, 0.05, 0.1, 0.25][random.below(5) as usize];
        value.string(random.pick(&COUNTRIES)).double(discount).boolean(random.below(5) == 0);
        let channel = random.pick(&CHANNELS).as_bytes().to_vec();
        self.record(0, customer_id, None, value.finish(), vec![("channel", channel)])
    }

    fn payment(&mut self) -> Record {
        let order_id = self.recent_order();
        self.payments += 1;
        let random = &mut self.random;
        let mut value = Encoder::framed(self.schema_ids[1]);
        value.long(self.payments).long(order_id).decimal(499 + below(random, 120_000)).long(currency_of(order_id));
        value.long(below(random, 4)).string(random.pick(&PAYMENT_STATUSES)).long(self.now_us);
        let key = order_id.to_string().into_bytes();
        self.record(1, order_id, Some(key), value.finish(), Vec::new())
    }

    fn ticket(&mut self) -> Record {
        let order_id = self.recent_order();
        self.tickets += 1;
        let random = &mut self.random;
        let product = random.pick(&PRODUCTS);
        let kind = random.below(TROUBLES.len() as u64);
        let (mut title, mut body) = (String::new(), String::new());
        let trouble = &TROUBLES[kind as usize];
        trouble.title(random, product, &mut title);
        trouble.body(random, product, &mut body);
        // The kinds come with the worst first.
        let severity = 3 - (kind / 3).min(3).cast_signed();
        let about_order = random.below(3) > 0;
        let mut value = Encoder::framed(self.schema_ids[2]);
        value.long(self.tickets).long(customer(random)).optional(about_order.then_some(order_id), |value, order_id| {
            value.long(order_id);
        });
        value.string(&title).string(&body).long(severity).string(product).string("en").long(self.now_us);
        self.record(2, 0, None, value.finish(), Vec::new())
    }

    fn log(&mut self) -> Record {
        let random = &mut self.random;
        let service = random.below(SERVICES.len() as u64);
        let (level, pattern, slowest_us) = match random.below(100) {
            0..3 => (3, random.pick(&LOG_ERRORS), 5_000_000),
            3..12 => (2, random.pick(&LOG_WARNINGS), 1_500_000),
            12..30 => (0, random.pick(&LOG_NORMAL), 80_000),
            _ => (1, random.pick(&LOG_NORMAL), 250_000),
        };
        let mut message = String::new();
        text::fill(pattern, random, "", &mut message);
        let trace_id = format!("{:016x}{:016x}", random.next(), random.next());
        let latency_ms = (200 + below(random, slowest_us)) as f64 / 1000.0;
        let mut value = Encoder::framed(self.schema_ids[3]);
        value
            .string(SERVICES[service as usize])
            .long(level)
            .string(&message)
            .string(&trace_id)
            .double(latency_ms)
            .long(self.now_us);
        let headers = vec![("trace_id", trace_id.into_bytes())];
        self.record(3, service.cast_signed(), None, value.finish(), headers)
    }

    /// A record of topic `index`, in the partition that `spread` falls into.
    fn record(
        &self,
        index: usize,
        spread: i64,
        key: Option<Vec<u8>>,
        value: Vec<u8>,
        headers: Vec<(&'static str, Vec<u8>)>,
    ) -> Record {
        let Topic { name, partitions, .. } = TOPICS[index];
        let partition = spread.rem_euclid(i64::from(partitions)) as i32;
        Record { topic: name, partition, key, value, timestamp_ms: self.now_us / 1000, headers }
    }

    fn recent_order(&mut self) -> i64 {
        let back = self.random.below(UNPAID_ORDERS.min(self.orders.unsigned_abs())).cast_signed();
        FIRST_ORDER_ID + self.orders - 1 - back
    }
}

fn below(random: &mut Random, bound: i64) -> i64 {
    random.below(bound.unsigned_abs()).cast_signed()
}

/// A customer, few of them often: the smaller of two draws.
fn customer(random: &mut Random) -> i64 {
    1 + random.below(CUSTOMERS).min(random.below(CUSTOMERS)).cast_signed()
}

/// An order and its payments are in one currency, mostly the first.
fn currency_of(order_id: i64) -> i64 {
    [0, 0, 0, 1, 1, 2, 3, 4, 0, 1][order_id.rem_euclid(10) as usize]
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use apache_avro::types::Value;
    use apache_avro::{Schema, from_avro_datum};

    use super::*;

    const IDS: [u32; 4] = [11, 22, 33, 44];

    fn records(seed: u64, count: usize) -> Vec<Record> {
        let mut generator = Generator::new(seed, IDS, 1_700_000_000_000, 1_500);
        (0..count).map(|_| generator.next()).collect()
    }

    /// The record's fields as another implementation of Avro reads them; nothing may be left over.
    fn decode(record: &Record, schemas: &[Schema]) -> BTreeMap<String, Value> {
        let index = TOPICS.iter().position(|topic| topic.name == record.topic).unwrap();
        let mut rest = &record.value[..];
        let (frame, datum) = rest.split_first_chunk::<5>().unwrap();
        assert_eq!((frame[0], u32::from_be_bytes(frame[1..].try_into().unwrap())), (0, IDS[index]));
        rest = datum;
        let Value::Record(fields) = from_avro_datum(&schemas[index], &mut rest, None).unwrap() else {
            panic!("not a record")
        };
        assert!(rest.is_empty(), "{} bytes left over in `{}`", rest.len(), record.topic);
        fields.into_iter().collect()
    }

    fn schemas() -> Vec<Schema> {
        TOPICS.iter().map(|topic| Schema::parse_str(topic.schema).unwrap()).collect()
    }

    fn long(value: &Value) -> i64 {
        match value {
            Value::Long(value) | Value::TimestampMicros(value) => *value,
            other => panic!("{other:?} is not a long"),
        }
    }

    #[test]
    fn another_implementation_reads_each_record_whole() {
        let schemas = schemas();
        let mut seen = BTreeMap::new();
        let mut orders = HashSet::new();
        let mut titles = HashSet::new();
        for (n, record) in records(1, 20_000).iter().enumerate() {
            let fields = decode(record, &schemas);
            let at =
                ["created_at", "paid_at", "opened_at", "logged_at"].iter().find_map(|name| fields.get(*name)).unwrap();
            assert_eq!(long(at), 1_700_000_000_000_000 + 1_500 * i64::try_from(n).unwrap());
            assert_eq!(record.timestamp_ms, long(at) / 1000);
            match record.topic {
                "orders" => assert!(orders.insert(long(&fields["order_id"]))),
                "payments" => {
                    assert!(orders.contains(&long(&fields["order_id"])));
                    assert_eq!(record.key, Some(long(&fields["order_id"]).to_string().into_bytes()));
                }
                "tickets" => {
                    let Value::String(title) = &fields["title"] else { panic!("no title") };
                    titles.insert(title.clone());
                }
                _ => assert_eq!(record.headers.len(), 1),
            }
            *seen.entry((record.topic, record.partition)).or_insert(0) += 1;
        }
        let partitions: i32 = TOPICS.iter().map(|topic| topic.partitions).sum();
        assert_eq!(seen.len(), usize::try_from(partitions).unwrap(), "{seen:?}");
        assert!(titles.len() > 50, "only {} titles", titles.len());
    }

    #[test]
    fn an_order_is_about_142_bytes() {
        let sizes: Vec<_> =
            records(2, 10_000).iter().filter(|r| r.topic == "orders").map(|r| r.value.len() - 5).collect();
        let mean = sizes.iter().sum::<usize>() / sizes.len();
        assert!((132..=152).contains(&mean), "{mean}");
    }

    #[test]
    fn the_seed_decides_everything() {
        assert_eq!(records(3, 1_000), records(3, 1_000));
        assert_ne!(records(3, 1_000), records(4, 1_000));
    }

    #[test]
    fn time_follows_the_clock_but_never_goes_back() {
        let mut generator = Generator::new(1, IDS, 1_000, 1_000);
        generator.not_before(5_000);
        generator.not_before(2_000);
        assert_eq!((generator.next().timestamp_ms, generator.next().timestamp_ms), (5_000, 5_001));
    }
}
