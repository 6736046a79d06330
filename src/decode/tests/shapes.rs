//! Random Avro schemas and values of them, each value beside the text that its row must show as. Values are made for an
//! encoder that sees the schema without logical types, so that no second opinion on those comes in.

use apache_avro::types::Value;
use proptest::prelude::*;
use serde_json::json;

/// A small generator of numbers: the same seed gives the same values.
pub(in crate::decode) struct Random(pub u64);

impl Random {
    pub(in crate::decode) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::decode) fn below(&mut self, bound: u64) -> usize {
        usize::try_from(self.next() % bound).unwrap()
    }

    /// Any number, those near the ends and near 0 often.
    pub(in crate::decode) fn long(&mut self, least: i64, most: i64) -> i64 {
        match self.below(6) {
            0 => least,
            1 => most,
            2 => 0_i64.clamp(least, most),
            3 => (i64::try_from(self.below(200)).unwrap() - 100).clamp(least, most),
            _ => (i128::from(least) + i128::from(self.next()) % (i128::from(most) - i128::from(least) + 1)) as i64,
        }
    }

    fn int(&mut self) -> i32 {
        i32::try_from(self.long(i32::MIN.into(), i32::MAX.into())).unwrap()
    }

    pub(in crate::decode) fn bytes(&mut self) -> Vec<u8> {
        (0..self.below(20)).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    pub(in crate::decode) fn text(&mut self) -> String {
        let letters = ['a', 'Z', ' ', '"', '\\', '\0', 'ß', '水', '🦀', '\u{10FFFF}'];
        (0..self.below(12)).map(|_| letters[self.below(10)]).collect()
    }
}

/// A schema that a value column can be made of.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(usize),
    Date,
    TimeMillis,
    TimeMicros,
    /// A logical type of timestamps, and what its unit times and over what is microseconds.
    Timestamp(&'static str, i64, i64),
    Decimal(u8, u8),
    DecimalFixed(u8, u8),
    Uuid,
    UuidFixed,
    Optional(Box<Shape>, bool),
    Array(Box<Shape>),
    Map(Box<Shape>),
    Record(Vec<Shape>),
    /// Several branches, and whether null is one more, the last.
    Union(Vec<Shape>, bool),
    /// A record of these fields and of itself, optional (`next`), in an array (`all`) and in a map (`by`).
    Tree(Vec<Shape>),
    /// A record whose two fields have the same type, the second by reference; only the named ones.
    Twice(Box<Shape>),
}

/// The fields of a record.
pub(super) fn record() -> impl Strategy<Value = Vec<Shape>> {
    proptest::collection::vec(shape(), 0..6)
}

fn shape() -> impl Strategy<Value = Shape> {
    let timestamps = [
        ("timestamp-millis", 1000, 1),
        ("timestamp-micros", 1, 1),
        ("timestamp-nanos", 1, 1000),
        ("local-timestamp-millis", 1000, 1),
        ("local-timestamp-micros", 1, 1),
        ("local-timestamp-nanos", 1, 1000),
        ("io.debezium.time.Timestamp", 1000, 1),
        ("io.debezium.time.MicroTimestamp", 1, 1),
        ("io.debezium.time.NanoTimestamp", 1, 1000),
    ];
    let precision = || (1..=38_u8).prop_flat_map(|precision| (Just(precision), 0..=precision));
    let leaf = prop_oneof![
        Just(Shape::Null),
        Just(Shape::Boolean),
        Just(Shape::Int),
        Just(Shape::Long),
        Just(Shape::Float),
        Just(Shape::Double),
        Just(Shape::Bytes),
        Just(Shape::Text),
        (1..20_usize).prop_map(Shape::Fixed),
        (1..5_usize).prop_map(Shape::Enum),
        Just(Shape::Date),
        Just(Shape::TimeMillis),
        Just(Shape::TimeMicros),
        proptest::sample::select(timestamps.to_vec())
            .prop_map(|(name, times, over)| Shape::Timestamp(name, times, over)),
        precision().prop_map(|(precision, scale)| Shape::Decimal(precision, scale)),
        precision().prop_map(|(precision, scale)| Shape::DecimalFixed(precision, scale)),
        Just(Shape::Uuid),
        Just(Shape::UuidFixed),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        prop_oneof![
            (inner.clone(), any::<bool>()).prop_map(|(inner, null_first)| match inner {
                Shape::Null | Shape::Optional(..) | Shape::Union(..) => inner,
                inner => Shape::Optional(Box::new(inner), null_first),
            }),
            inner.clone().prop_map(|inner| Shape::Array(Box::new(inner))),
            inner.clone().prop_map(|inner| Shape::Map(Box::new(inner))),
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Shape::Record),
            (proptest::collection::vec(inner.clone(), 2..5), any::<bool>())
                .prop_map(|(branches, null)| union(branches, null)),
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Shape::Tree),
            proptest::collection::vec(inner, 0..3).prop_map(|fields| Shape::Twice(Box::new(Shape::Record(fields)))),
            (1..5_usize).prop_map(|count| Shape::Twice(Box::new(Shape::Enum(count)))),
        ]
    })
}

/// A union of those of `branches` that can stand together in one.
fn union(mut branches: Vec<Shape>, null: bool) -> Shape {
    let mut words = Vec::new();
    branches.retain(|branch| {
        let fits = !matches!(branch, Shape::Null | Shape::Optional(..) | Shape::Union(..));
        let word = branch.word();
        let new = word.is_none() || !words.contains(&word);
        words.push(word);
        fits && new
    });
    match branches.len() {
        0 => Shape::Null,
        1 => branches.remove(0).optional(),
        _ => Shape::Union(branches, null),
    }
}

impl Shape {
    /// What unions call a type without name.
    fn word(&self) -> Option<&'static str> {
        Some(match self {
            Self::Boolean => "boolean",
            Self::Int | Self::Date | Self::TimeMillis => "int",
            Self::Long | Self::TimeMicros | Self::Timestamp(..) => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes | Self::Decimal(..) => "bytes",
            Self::Text | Self::Uuid => "string",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            _ => return None,
        })
    }

    /// This or null.
    pub(super) fn optional(self) -> Self {
        match self {
            Self::Null | Self::Optional(..) => self,
            Self::Union(branches, _) => Self::Union(branches, true),
            inner => Self::Optional(Box::new(inner), true),
        }
    }

    /// True where it becomes no column.
    pub(super) fn is_columnless(&self) -> bool {
        match self {
            Self::Null => true,
            Self::Optional(inner, _) | Self::Array(inner) | Self::Map(inner) | Self::Twice(inner) => {
                inner.is_columnless()
            }
            Self::Record(fields) | Self::Union(fields, _) => fields.iter().all(Self::is_columnless),
            _ => false,
        }
    }

    /// The schema as text; named types are called by the place where they stand.
    pub(super) fn text(&self, logical: bool) -> String {
        self.json(logical, "r").to_string()
    }

    fn json(&self, logical: bool, place: &str) -> serde_json::Value {
        let meaning = |base: serde_json::Value, name: &str| {
            let mut json = base;
            if logical {
                json[if name.contains('.') { "connect.name" } else { "logicalType" }] = name.into();
            }
            json
        };
        let decimal = |base: serde_json::Value, precision: u8, scale: u8| {
            let mut json = meaning(base, "decimal");
            json["precision"] = precision.into();
            json["scale"] = scale.into();
            json
        };
        let below = |part: &str| format!("{place}_{part}");
        match self {
            Self::Null => json!("null"),
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Bytes => json!("bytes"),
            Self::Text => json!("string"),
            Self::Fixed(size) => json!({"type": "fixed", "name": place, "size": size}),
            Self::Enum(count) => json!({"type": "enum", "name": place, "symbols": symbols(*count)}),
            Self::Date => meaning(json!({"type": "int"}), "date"),
            Self::TimeMillis => meaning(json!({"type": "int"}), "time-millis"),
            Self::TimeMicros => meaning(json!({"type": "long"}), "time-micros"),
            Self::Timestamp(name, ..) => meaning(json!({"type": "long"}), name),
            Self::Decimal(precision, scale) => decimal(json!({"type": "bytes"}), *precision, *scale),
            Self::DecimalFixed(precision, scale) => {
                decimal(json!({"type": "fixed", "name": place, "size": 20}), *precision, *scale)
            }
            Self::Uuid => meaning(json!({"type": "string"}), "uuid"),
            Self::UuidFixed => meaning(json!({"type": "fixed", "name": place, "size": 16}), "uuid"),
            Self::Optional(inner, true) => json!(["null", inner.json(logical, place)]),
            Self::Optional(inner, false) => json!([inner.json(logical, place), "null"]),
            Self::Array(items) => json!({"type": "array", "items": items.json(logical, &below("e"))}),
            Self::Map(values) => json!({"type": "map", "values": values.json(logical, &below("v"))}),
            Self::Record(fields) => {
                json!({"type": "record", "name": place, "fields": members(fields, logical, place)})
            }
            Self::Union(branches, null) => {
                let branch = |(index, branch): (usize, &Self)| branch.json(logical, &format!("{place}_.b{index}"));
                let branches: Vec<_> = branches.iter().enumerate().map(branch).collect();
                json!([branches, vec![json!("null"); usize::from(*null)]].concat())
            }
            Self::Tree(fields) => {
                let mut all = members(fields, logical, place);
                all.push(json!({"name": "next", "type": ["null", place]}));
                all.push(json!({"name": "all", "type": {"type": "array", "items": place}}));
                all.push(json!({"name": "by", "type": {"type": "map", "values": place}}));
                json!({"type": "record", "name": place, "fields": all})
            }
            Self::Twice(inner) => {
                let name = below("t");
                let fields = json!([{"name": "a", "type": inner.json(logical, &name)}, {"name": "b", "type": name}]);
                json!({"type": "record", "name": place, "fields": fields})
            }
        }
    }

    /// A value, and how its column shows it.
    pub(super) fn value(&self, random: &mut Random) -> (Value, String) {
        match self {
            Self::Null => (Value::Null, "null".to_owned()),
            Self::Boolean => {
                let value = random.below(2) == 1;
                (Value::Boolean(value), value.to_string())
            }
            Self::Int | Self::Date => {
                let value = random.int();
                (Value::Int(value), value.to_string())
            }
            Self::Long => {
                let value = random.long(i64::MIN, i64::MAX);
                (Value::Long(value), value.to_string())
            }
            Self::Float => {
                let value =
                    [f32::NAN, f32::INFINITY, -0.0, f32::MIN, f32::from_bits(random.next() as u32)][random.below(5)];
                (Value::Float(value), format!("{:x}", value.to_bits()))
            }
            Self::Double => {
                let value =
                    [f64::NAN, f64::NEG_INFINITY, -0.0, f64::MAX, f64::from_bits(random.next())][random.below(5)];
                (Value::Double(value), format!("{:x}", value.to_bits()))
            }
            Self::Bytes => {
                let value = random.bytes();
                let shown = format!("{value:?}");
                (Value::Bytes(value), shown)
            }
            Self::Text => {
                let value = random.text();
                let shown = format!("{value:?}");
                (Value::String(value), shown)
            }
            Self::Fixed(size) => {
                let value: Vec<u8> = (0..*size).map(|_| random.next().to_le_bytes()[0]).collect();
                let shown = format!("{value:?}");
                (Value::Fixed(*size, value), shown)
            }
            Self::Enum(count) => {
                let index = random.below(*count as u64);
                let symbol = symbols(*count)[index].clone();
                let shown = format!("{symbol:?}");
                (Value::Enum(u32::try_from(index).unwrap(), symbol), shown)
            }
            Self::TimeMillis => {
                let value = random.long(0, 86_399_999);
                (Value::Int(i32::try_from(value).unwrap()), (value * 1000).to_string())
            }
            Self::TimeMicros => {
                let value = random.long(0, 86_399_999_999);
                (Value::Long(value), value.to_string())
            }
            Self::Timestamp(_, times, over) => {
                let value = random.long(i64::MIN / times, i64::MAX / times);
                (Value::Long(value), (value * times).div_euclid(*over).to_string())
            }
            Self::Decimal(precision, _) | Self::DecimalFixed(precision, _) => self.decimal(random, *precision),
            Self::Uuid | Self::UuidFixed => {
                let uuid = uuid::Uuid::from_u64_pair(random.next(), random.next());
                let shown = format!("{:?}", uuid.as_bytes());
                let fixed = matches!(self, Self::UuidFixed);
                (
                    if fixed { Value::Fixed(16, uuid.as_bytes().to_vec()) } else { Value::String(uuid.to_string()) },
                    shown,
                )
            }
            _ => self.nested(random),
        }
    }

    fn decimal(&self, random: &mut Random, precision: u8) -> (Value, String) {
        let limit = 10_i128.pow(precision.into());
        let any = ((i128::from(random.next()) << 64) | i128::from(random.next())) % limit;
        let value = [0, -1, 1 - limit, limit - 1, any][random.below(5)];
        // A writer may keep bytes that only repeat the sign, or leave them out.
        let wide = [vec![if value < 0 { 0xff } else { 0 }; 4], value.to_be_bytes().to_vec()].concat();
        let spare =
            wide.windows(2).take_while(|pair| (pair[0] == 0 && pair[1] < 0x80) || (pair[0] == 0xff && pair[1] >= 0x80));
        let spare = spare.count();
        let bytes = match self {
            Self::DecimalFixed(..) => Value::Fixed(20, wide),
            _ => Value::Bytes(wide[random.below(spare as u64 + 1)..].to_vec()),
        };
        (bytes, value.to_string())
    }

    /// The first level has columns; what stands below is JSON text.
    fn tree(&self, fields: &[Self], random: &mut Random) -> (Value, String) {
        let (Value::Record(mut values), shown) = Self::Record(fields.to_vec()).value(random) else { unreachable!() };
        let mut child = |most: u64| (random.below(4) < usize::try_from(most).unwrap()).then(|| self.value(random).0);
        let text = |value: &Option<Value>| value.as_ref().map(|value| format!("{:?}", self.json_text(value)));
        let (next, all, by) = (child(1), child(1), child(1));
        let nothing = || "null".to_owned();
        let columns = [
            format!("next={}", text(&next).unwrap_or_else(nothing)),
            format!("all=[{}]", text(&all).unwrap_or_default()),
            format!("by=[{}]", text(&by).map_or_else(String::new, |text| format!("{{key=\"k\",value={text}}}"))),
        ];
        let union = Value::Union(u32::from(next.is_some()), Box::new(next.unwrap_or(Value::Null)));
        values.push(("next".to_owned(), union));
        values.push(("all".to_owned(), Value::Array(all.into_iter().collect())));
        values.push(("by".to_owned(), Value::Map(by.into_iter().map(|value| ("k".to_owned(), value)).collect())));
        let first = shown[1..shown.len() - 1].to_owned();
        let all = [vec![first; usize::from(shown.len() > 2)], columns.to_vec()].concat();
        (Value::Record(values), format!("{{{}}}", all.join(",")))
    }

    fn nested(&self, random: &mut Random) -> (Value, String) {
        match self {
            Self::Optional(inner, null_first) => {
                let (value, shown) =
                    if random.below(3) == 0 { (Value::Null, "null".to_owned()) } else { inner.value(random) };
                let branch = u32::from((value == Value::Null) != *null_first);
                (Value::Union(branch, Box::new(value)), shown)
            }
            Self::Array(items) => {
                let (values, shown): (Vec<_>, Vec<_>) = (0..random.below(4)).map(|_| items.value(random)).unzip();
                (Value::Array(values), format!("[{}]", shown.join(",")))
            }
            Self::Map(values) => {
                // One entry at most: the order of more is the encoder's.
                let entries: Vec<_> = (0..random.below(2)).map(|_| (random.text(), values.value(random))).collect();
                let shown: Vec<_> =
                    entries.iter().map(|(key, (_, shown))| format!("{{key={key:?},value={shown}}}")).collect();
                let entries = entries.into_iter().map(|(key, (value, _))| (key, value)).collect();
                (Value::Map(entries), format!("[{}]", shown.join(",")))
            }
            Self::Union(branches, null) => {
                let branch = random.below((branches.len() + usize::from(*null)) as u64);
                let (value, shown) = match branches.get(branch) {
                    Some(shape) => shape.value(random),
                    None => (Value::Null, "null".to_owned()),
                };
                let column = |(index, shape): (usize, &Self)| {
                    let name = shape.word().map_or_else(|| format!("b{index}"), str::to_owned);
                    format!("{name}={}", if index == branch { shown.as_str() } else { "null" })
                };
                let columns = branches.iter().enumerate().filter(|(_, shape)| !shape.is_columnless()).map(column);
                let columns = columns.collect::<Vec<_>>().join(",");
                let all = if branch == branches.len() { "null".to_owned() } else { format!("{{{columns}}}") };
                (Value::Union(u32::try_from(branch).unwrap(), Box::new(value)), all)
            }
            Self::Tree(fields) => self.tree(fields, random),
            Self::Twice(inner) => {
                let ((a, shown_a), (b, shown_b)) = (inner.value(random), inner.value(random));
                let shown =
                    if inner.is_columnless() { "{}".to_owned() } else { format!("{{a={shown_a},b={shown_b}}}") };
                (Value::Record(vec![("a".to_owned(), a), ("b".to_owned(), b)]), shown)
            }
            Self::Record(fields) => {
                let (mut values, mut shown) = (Vec::new(), Vec::new());
                for (index, field) in fields.iter().enumerate() {
                    let (value, text) = field.value(random);
                    values.push((format!("f{index}"), value));
                    if !field.is_columnless() {
                        shown.push(format!("f{index}={text}"));
                    }
                }
                (Value::Record(values), format!("{{{}}}", shown.join(",")))
            }
            _ => unreachable!("the other kinds have no parts"),
        }
    }
}

/// Fields `f0`, `f1`, … of a record called `place`.
fn members(fields: &[Shape], logical: bool, place: &str) -> Vec<serde_json::Value> {
    let json = |index: usize, field: &Shape| field.json(logical, &format!("{place}_f{index}"));
    let field = |(index, field)| json!({"name": format!("f{index}"), "type": json(index, field)});
    fields.iter().enumerate().map(field).collect()
}

fn symbols(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("S{index}")).collect()
}
