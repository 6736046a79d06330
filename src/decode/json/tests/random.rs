//! Random schemas, values and bytes, held against serde_json: what goes in comes out, nothing is lost, and a bad
//! record touches no other.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::infer::Inferred;
use super::super::mapping::columns;
use super::super::program::Program;
use super::super::schema::parse_text;
use super::{decode, rescue_column};
use crate::decode::mapping::MappingOptions;
use crate::model::projection::{ALL, Projection};
use crate::model::schema::{Field, Type};

/// A schema, by what its values are.
#[derive(Debug, Clone)]
enum Shape {
    Boolean,
    Long,
    Double,
    Text,
    Any,
    Nullable(Box<Shape>),
    List(Box<Shape>),
    Map(Box<Shape>),
    Object(Vec<(String, Shape, bool)>),
}

fn shape() -> impl Strategy<Value = Shape> {
    let leaf =
        prop_oneof![Just(Shape::Boolean), Just(Shape::Long), Just(Shape::Double), Just(Shape::Text), Just(Shape::Any)];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|shape| Shape::Nullable(Box::new(shape))),
            inner.clone().prop_map(|shape| Shape::List(Box::new(shape))),
            inner.clone().prop_map(|shape| Shape::Map(Box::new(shape))),
            object(inner),
        ]
    })
}

/// Names are told apart by more than case: which column takes which is another test's matter.
fn object(inner: impl Strategy<Value = Shape>) -> impl Strategy<Value = Shape> {
    let member = (r#"[a-cé"\\ .]{1,3}"#, inner, any::<bool>());
    prop::collection::vec(member, 1..5).prop_map(|mut members| {
        let mut seen = std::collections::BTreeSet::new();
        members.retain(|(name, ..)| seen.insert(name.clone()));
        Shape::Object(members)
    })
}

impl Shape {
    fn schema(&self) -> Value {
        match self {
            Self::Boolean => json!({"type": "boolean"}),
            Self::Long => json!({"type": "integer"}),
            Self::Double => json!({"type": "number"}),
            Self::Text => json!({"type": "string"}),
            Self::Any => json!({}),
            Self::Nullable(shape) => json!({"oneOf": [{"type": "null"}, shape.schema()]}),
            Self::List(shape) => json!({"type": "array", "items": shape.schema()}),
            // Beside a type without keywords the schema of anything makes no map.
            Self::Map(shape) => {
                json!({"type": "object", "connect.type": "map", "additionalProperties": shape.schema()})
            }
            Self::Object(members) => {
                let properties: Map<_, _> =
                    members.iter().map(|(name, shape, _)| (name.clone(), shape.schema())).collect();
                let required: Vec<_> =
                    members.iter().filter(|(.., required)| *required).map(|(name, ..)| name).collect();
                json!({"type": "object", "properties": properties, "required": required})
            }
        }
    }

    fn value(&self) -> BoxedStrategy<Value> {
        match self {
            Self::Boolean => any::<bool>().prop_map(Value::from).boxed(),
            Self::Long => any::<i64>().prop_map(Value::from).boxed(),
            Self::Double => any::<f64>().prop_filter("finite", |value| value.is_finite()).prop_map(Value::from).boxed(),
            Self::Text => any::<String>().prop_map(Value::from).boxed(),
            Self::Any => anything().boxed(),
            Self::Nullable(shape) => prop_oneof![Just(Value::Null), shape.value()].boxed(),
            Self::List(shape) => prop::collection::vec(shape.value(), 0..4).prop_map(Value::from).boxed(),
            Self::Map(shape) => prop::collection::vec((any::<String>(), shape.value()), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect()))
                .boxed(),
            Self::Object(members) => {
                let member = |(name, shape, required): &(String, Self, bool)| {
                    let (name, required) = (name.clone(), *required);
                    (shape.value(), any::<bool>())
                        .prop_map(move |(v, there)| (there || required).then(|| (name.clone(), v)))
                };
                let members: Vec<_> = members.iter().map(member).collect();
                (members, any::<usize>())
                    .prop_map(|(members, turn)| {
                        let mut members: Vec<_> = members.into_iter().flatten().collect();
                        let by = turn % members.len().max(1);
                        members.rotate_left(by);
                        Value::Object(members.into_iter().collect())
                    })
                    .boxed()
            }
        }
    }
}

fn schema_and_values() -> impl Strategy<Value = (Value, Vec<Value>)> {
    object(shape()).prop_flat_map(|shape| (Just(shape.schema()), prop::collection::vec(shape.value(), 1..5)))
}

/// Values whose numbers serde_json reads exactly, whose names collide in every way.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|eighths| Value::from(f64::from(eighths) / 8.0)),
        "[a-z\"\\\\\u{0}é]{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from), members(inner)]
    })
}

fn members(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let names = ["a", "A", "a_2", "b", "", "x.y", "\"q\"", "é\\", "_rescued", "kafka_offset", "of member \"b\""];
    prop::collection::vec((prop::sample::select(names.to_vec()), inner), 0..5)
        .prop_map(|members| Value::Object(members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
}

/// Without members that are null: absent and null are one in a table.
fn plain(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(members) => {
            let members = members.iter().filter(|(_, value)| !value.is_null());
            Value::Object(members.map(|(name, value)| (name.clone(), plain(value))).collect())
        }
        Value::Number(number) => number.as_f64().map_or(Value::Null, |n| if n == 0.0 { json!(0.0) } else { n.into() }),
        other => other.clone(),
    }
}

/// What of `value`, which lies at `path`, a table has.
fn chosen(projection: &Projection, path: &str, value: &Value) -> Value {
    let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(members) => {
            let members = members.iter().map(|(name, value)| (name, inside(name), value));
            let members = members.filter(|(_, path, _)| projection.takes(path));
            Value::Object(members.map(|(name, path, value)| (name.clone(), chosen(projection, &path, value))).collect())
        }
        Value::Array(items) if projection.takes(&inside("element")) => {
            items.iter().map(|item| chosen(projection, &inside("element"), item)).collect()
        }
        Value::Array(_) => json!([]),
        value => value.clone(),
    }
}

/// A choice among the members of [`members`].
fn projection() -> impl Strategy<Value = Projection> {
    let path = prop::collection::vec(prop::sample::select(vec!["a", "b", "B", "a_2", "é\\", "element"]), 1..4);
    let paths = || prop::collection::vec(path.clone().prop_map(|path| path.join(".")), 0..4);
    let rename = prop::sample::select(vec![vec![], vec![("a", "b")], vec![("A", "b"), ("b", "a")], vec![("b", "a_2")]]);
    (prop::option::of(paths()), paths(), rename).prop_map(|(include, exclude, rename)| Projection {
        include: include.filter(|paths| !paths.is_empty()),
        exclude,
        rename: rename.into_iter().map(|(from, to)| (from.to_owned(), to.to_owned())).collect(),
    })
}

/// `over` laid over `row`: objects member by member, everything else in one piece.
fn laid_over(row: &mut Value, over: Value) {
    match (row, over) {
        (Value::Object(row), Value::Object(over)) => {
            over.into_iter().for_each(|(name, value)| laid_over(row.entry(name).or_insert(Value::Null), value));
        }
        (row, over) => *row = over,
    }
}

/// A table, how records are read into it, and what its rows mean: the record's members again.
struct Reader {
    table: Vec<Field>,
    program: Program,
}

impl Reader {
    /// `columns`, and behind them a column of others and the rescue column.
    fn new(columns: Vec<Field>, program: impl Fn(&[Field], &[usize], Option<usize>) -> Program) -> Self {
        let open: Vec<usize> = (0..columns.len()).collect();
        let mut table = columns;
        table.extend([Field::optional("kafka_offset", Type::Long), rescue_column()]);
        let program = program(&table, &open, Some(table.len() - 1));
        Self { table, program }
    }

    fn read<T: AsRef<[u8]>>(&self, texts: &[T]) -> Vec<Option<Value>> {
        // Members may be called as these two are; a name of their own keeps them apart.
        let mut table = self.table.clone();
        let count = table.len();
        table[count - 2].doc = Some("of member \"\\u0000others\"".to_owned());
        table[count - 1].doc = Some("JSON text of member \"\\u0000rescued\"".to_owned());
        let rows = decode(&self.program, &table, texts).into_iter();
        rows.map(|row| {
            let Value::Object(mut row) = row.ok()? else { unreachable!() };
            let rescued = row.remove("\0rescued").unwrap();
            assert_eq!(row.remove("\0others"), Some(Value::Null));
            let mut row = Value::Object(row);
            if !rescued.is_null() {
                laid_over(&mut row, rescued);
            }
            Some(plain(&row))
        })
        .collect()
    }
}

fn text(value: &Value, pretty: bool) -> String {
    if pretty { serde_json::to_string_pretty(value).unwrap() } else { value.to_string() }
}

/// True where serde_json finds an object, or gives up at the size of a number and `found` is true.
fn is_record(bytes: &[u8], found: bool) -> bool {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(value) => value.is_object(),
        Err(error) => found && error.to_string().starts_with("number out of range"),
    }
}

fn by_schema(schema: &Value) -> Reader {
    let options = MappingOptions::default();
    let schema = parse_text(&schema.to_string()).unwrap();
    let columns = columns(&schema, options).unwrap().unwrap();
    Reader::new(columns, |table, open, rescued| Program::compile(&schema, table, open, options, &ALL, rescued).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_a_schema_describes_comes_out_and_nothing_is_rescued((schema, values) in schema_and_values(), pretty in any::<bool>()) {
        let parsed = parse_text(&schema.to_string()).unwrap();
        let table = columns(&parsed, MappingOptions::default()).unwrap().unwrap();
        let open: Vec<usize> = (0..table.len()).collect();
        let texts: Vec<String> = values.iter().map(|value| text(value, pretty)).collect();
        // Without a rescue column a value that does not fit would be an error.
        let program = Program::compile(&parsed, &table, &open, MappingOptions::default(), &ALL, None).unwrap();
        for (value, row) in values.iter().zip(decode(&program, &table, &texts)) {
            prop_assert_eq!(plain(&row.unwrap()), plain(value));
        }
    }

    #[test]
    fn what_a_schema_does_not_describe_is_rescued((schema, _) in schema_and_values(), values in prop::collection::vec(members(anything()), 1..5), pretty in any::<bool>()) {
        let texts: Vec<String> = values.iter().map(|value| text(value, pretty)).collect();
        let expected: Vec<_> = values.iter().map(|value| Some(plain(value))).collect();
        prop_assert_eq!(by_schema(&schema).read(&texts), expected);
    }

    #[test]
    fn without_a_schema_nothing_that_is_chosen_is_lost(projection in prop_oneof![Just(ALL.clone()), projection()], batches in prop::collection::vec(prop::collection::vec(members(anything()), 1..5), 1..4), pretty in any::<bool>()) {
        let mut known: Vec<Field> = Vec::new();
        for batch in batches {
            let texts: Vec<String> = batch.iter().map(|value| text(value, pretty)).collect();
            let schemaless = |table: &[Field], open: &[usize], rescued| Program::schemaless(table, open, &projection, rescued).unwrap();
            let expected: Vec<_> = batch.iter().map(|value| Some(plain(&chosen(&projection, "", value)))).collect();
            // Before the table has the new columns, and after.
            let before = Reader::new(known.clone(), schemaless);
            prop_assert_eq!(before.read(&texts), expected.clone());
            let open: Vec<usize> = (0..known.len()).collect();
            let mut inferred = Inferred::new(&before.table, &open, &projection);
            texts.iter().for_each(|text| inferred.see(text.as_bytes()));
            known = inferred.columns();
            prop_assert_eq!(Reader::new(known.clone(), schemaless).read(&texts), expected);
        }
    }

    #[test]
    fn a_bad_record_touches_no_other((schema, values) in schema_and_values(), at in any::<usize>(), bytes in prop::collection::vec(any::<u8>(), 0..3), cut in any::<bool>()) {
        let reader = by_schema(&schema);
        let mut texts: Vec<Vec<u8>> = values.iter().map(|value| text(value, false).into_bytes()).collect();
        let mut bad = texts[0].clone();
        let at = at % bad.len();
        if cut { bad.truncate(at) } else { bad.splice(at..=at, bytes) ; }
        texts.insert(values.len() / 2, bad.clone());
        let mut rows = reader.read(&texts);
        let row = rows.remove(values.len() / 2);
        let expected: Vec<_> = values.iter().map(|value| Some(plain(value))).collect();
        prop_assert_eq!(rows, expected);
        prop_assert_eq!(row.is_some(), is_record(&bad, row.is_some()), "{:?}", String::from_utf8_lossy(&bad));
    }

    #[test]
    fn random_bytes_are_no_record((schema, _) in schema_and_values(), bytes in prop::collection::vec(any::<u8>(), 0..40)) {
        let found = by_schema(&schema).read(&[&bytes])[0].is_some();
        prop_assert_eq!(found, is_record(&bytes, found));
        let mut inferred = Inferred::default();
        inferred.see(&bytes);
        prop_assert!(found || inferred.columns().is_empty());
    }
}
