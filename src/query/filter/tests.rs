//! Conditions over rows: what each says, of which row it cannot say anything, and what no condition may be.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Decimal128Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Int64Type};
use proptest::prelude::*;

use super::SqlFilter;
use crate::model::schema::{Field, TableSchema, Type, UTC};
use crate::ports::{PlannedFilter, RowFilter, Verdicts};

/// Three rows: 1, 0 and null, and likewise in the other columns.
fn rows() -> (TableSchema, RecordBatch) {
    let place = Type::Struct(vec![Field::optional("City", Type::String), Field::optional("zip", Type::Int)]);
    let list = Type::List(Box::new(Field::optional("element", Type::Long)));
    let fields = vec![
        Field::optional("amount", Type::Long),
        Field::optional("customerId", Type::String),
        Field::optional("price", Type::Decimal(10, 2)),
        Field::optional("place", place.clone()),
        Field::optional("tags", list.clone()),
        Field::optional("a.b", Type::Boolean),
        Field::optional("kafka_partition", Type::Int),
        Field::optional("kafka_timestamp", Type::TimestampTz),
    ];
    let table = TableSchema { schema_id: 0, ..TableSchema::of(fields) };
    let DataType::Struct(place) = place.to_arrow() else { unreachable!() };
    let of_place: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("Ulm"), Some("Bonn"), None])),
        Arc::new(Int32Array::from(vec![Some(89), None, None])),
    ];
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), Some(2)]), Some(vec![]), None]);
    let DataType::List(element) = list.to_arrow() else { unreachable!() };
    let (_, offsets, values, nulls) = lists.into_parts();
    let decimals = Decimal128Array::from(vec![Some(1230), Some(5), None]).with_precision_and_scale(10, 2).unwrap();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), Some(0), None])),
        Arc::new(StringArray::from(vec![Some("x"), Some("12"), None])),
        Arc::new(decimals),
        Arc::new(StructArray::new(place, of_place, None)),
        Arc::new(ListArray::new(element, offsets, values, nulls)),
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        Arc::new(Int32Array::from(vec![3, 4, 5])),
        Arc::new(TimestampMicrosecondArray::from(vec![1_767_225_600_000_000, 0, 0]).with_timezone(UTC)),
    ];
    let batch = RecordBatch::try_new(table.to_arrow(), columns).unwrap();
    (table, batch)
}

/// The verdicts as a letter each: kept, left out, undecided, failed.
fn letters(verdicts: &Verdicts) -> String {
    let letter = |(row, kept): (usize, Option<bool>)| match kept {
        Some(true) => 'k',
        Some(false) => 'o',
        None if verdicts.failed.iter().any(|(failed, _)| *failed == row) => 'f',
        None => 'u',
    };
    verdicts.kept.iter().enumerate().map(letter).collect()
}

fn planned(condition: &str, table: &TableSchema) -> Arc<dyn PlannedFilter> {
    SqlFilter::new(condition).and_then(|filter| filter.plan(table)).unwrap_or_else(|error| panic!("{}", error.chain()))
}

#[test]
fn a_condition_is_true_or_false_or_neither() {
    let (table, batch) = rows();
    for (condition, expected, missing) in [
        ("amount > 0", "kou", ""),
        ("AMOUNT > 0 IS TRUE", "koo", ""),
        ("COALESCE(amount > 0, true)", "kok", ""),
        ("true", "kkk", ""),
        ("NULL", "uuu", ""),
        // Names are found without case, quoted or not, whatever the engine makes of them.
        ("customerId = 'x'", "kou", ""),
        ("CustomerID = 'x' OR \"CUSTOMERID\" = '12'", "kku", ""),
        ("\"a.b\"", "kou", ""),
        // Numbers with a point are exact beside decimals.
        ("price = 12.30", "kou", ""),
        ("price IN (12.3, 0.05)", "kku", ""),
        ("place.city = 'Ulm'", "kou", ""),
        ("place['city'] = 'Ulm' AND Place.Zip = 89", "kou", ""),
        ("place.zip IS NULL", "okk", ""),
        ("tags[1] = 1", "kuu", ""),
        ("array_has(tags, 2)", "kou", ""),
        ("kafka_partition = 3 AND amount > 0", "koo", ""),
        ("kafka_timestamp >= '2026-01-01T00:00:00Z'", "koo", ""),
        ("kafka_timestamp > TIMESTAMP '2025-12-31 23:59:59'", "koo", ""),
        ("customerId LIKE '1%' OR customerId ~ '^x'", "kku", ""),
        ("CASE WHEN amount = 0 THEN false ELSE amount = 1 END", "kou", ""),
        // What fails, fails for its row alone.
        ("10 / amount > 1", "kfu", ""),
        ("amount <> 0 AND 10 / amount > 1", "kou", ""),
        ("10 / NULLIF(amount, 0) > 1", "kuu", ""),
        ("CAST(customerId AS INT) = 12", "fku", ""),
        ("TRY_CAST(customerId AS INT) = 12", "uku", ""),
        // What is not there is null, whatever is made of it.
        ("status = 'x'", "uuu", "status"),
        ("(status = 'x') IS TRUE OR amount = 1", "kou", "status"),
        ("COALESCE(lower(status) LIKE 'x%', amount = 1)", "kou", "status"),
        ("COALESCE(status.code > 1 AND place.street = 'a', kafka_partition = 5)", "ook", "status place.street"),
        ("NOT COALESCE(array_has(labels, 'x'), false)", "kkk", "labels"),
        (
            "COALESCE(date_trunc('day', seen) > kafka_timestamp, true) AND COALESCE(lines[1].price > 1, true)",
            "kkk",
            "seen lines",
        ),
        ("flag", "uuu", "flag"),
    ] {
        let filter = planned(condition, &table);
        let verdicts = filter.decide(&batch).unwrap();
        assert_eq!(letters(&verdicts), expected, "{condition}");
        assert_eq!(filter.missing().join(" "), missing, "{condition}");
    }
}

#[test]
fn what_is_no_condition_over_one_row_is_refused() {
    for (condition, expected) in [
        ("amount >", "Expected"),
        ("amount > 1; DROP TABLE t", "end of expression"),
        ("amount > 1 ORDER BY 1", "end of expression"),
        ("amount IN (SELECT 1)", "it holds a query"),
        ("EXISTS (SELECT 1)", "it holds a query"),
        ("amount > (SELECT max(amount) FROM t)", "it holds a query"),
        ("amount > avg(amount)", "more than one row"),
        ("row_number() OVER () > 1", "more than one row"),
        ("random() > 0.5", "`random` does not always answer the same"),
        ("kafka_timestamp > now()", "`now` does not always answer the same"),
        ("kafka_timestamp > current_date", "`current_date` does not always answer the same"),
        ("customerId = uuid()", "`uuid` does not always answer the same"),
        ("amount > $1", "it has a parameter"),
        ("nonsense(amount)", "nonsense"),
    ] {
        let error = SqlFilter::new(condition).err().unwrap_or_else(|| panic!("{condition}")).chain();
        assert!(error.starts_with(&format!("`where` cannot be `{condition}`: ")), "{error}");
        assert!(error.contains(expected), "{error}");
    }
    let (table, _) = rows();
    for (condition, expected) in [
        ("amount", "it is Int64, and neither true nor false"),
        ("amount + 1", "it is Int64, and neither true nor false"),
        ("place = 1", "Cannot"),
        ("customerId > place", "Cannot"),
        ("1 / 0 = 1", "Divide by zero"),
    ] {
        let refused = SqlFilter::new(condition).and_then(|filter| filter.plan(&table)).err();
        let error = refused.unwrap_or_else(|| panic!("{condition}")).chain();
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{condition}: {error}");
    }
}

#[test]
fn a_failure_says_nothing_of_the_row() {
    let (table, batch) = rows();
    let failed = |condition: &str| planned(condition, &table).decide(&batch).unwrap().failed;
    assert_eq!(failed("10 / amount > 1"), [(1, "`where` divides by zero")]);
    assert_eq!(failed("CAST(customerId AS INT) = 12"), [(0, "`where` takes a value for what it is not")]);
}

/// Conditions whose parts fail for some numbers, and hide it from others.
const CONDITIONS: [&str; 7] = [
    "10 / n > 1",
    "n <> 0 AND 10 / n > 1",
    "n = 0 OR 10 / n > 1",
    "COALESCE(n, 10 / m) > 1",
    "CASE WHEN m = 0 THEN n = 1 WHEN n > 0 THEN 10 / n > m ELSE NULL END",
    "n IN (1, 2, 3) AND 6 / m = n",
    "CAST(t AS BIGINT) = n",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_depends_on_no_other_row(
        values in prop::collection::vec((prop::option::of(-1..4_i64), prop::option::of(-1..2_i64), "[0-3x]?"), 1..70),
        condition in prop::sample::select(CONDITIONS.to_vec()),
    ) {
        let fields = vec![Field::optional("n", Type::Long), Field::optional("m", Type::Long), Field::optional("t", Type::String)];
        let table = TableSchema { schema_id: 0, ..TableSchema::of(fields) };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(values.iter().map(|(n, ..)| *n).collect::<Int64Array>()),
            Arc::new(values.iter().map(|(_, m, _)| *m).collect::<Int64Array>()),
            Arc::new(values.iter().map(|(.., t)| Some(t.as_str())).collect::<StringArray>()),
        ];
        let batch = RecordBatch::try_new(table.to_arrow(), columns).unwrap();
        let filter = planned(condition, &table);
        let all = filter.decide(&batch).unwrap();
        prop_assert_eq!(all.kept.len(), batch.num_rows());
        let alone = (0..batch.num_rows()).map(|row| letters(&filter.decide(&batch.slice(row, 1)).unwrap()));
        prop_assert_eq!(letters(&all), alone.collect::<String>(), "{}", condition);
    }
}

/// What a filter costs per row, for people: `cargo test --lib what_a_filter_costs -- --ignored --nocapture`.
#[test]
#[ignore = "it measures"]
#[expect(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a measurement reads the machine's own clock"
)]
fn what_a_filter_costs() {
    const ROWS: usize = 8192;
    let fields = vec![Field::optional("amount", Type::Long), Field::optional("status", Type::String)];
    let table = TableSchema { schema_id: 0, ..TableSchema::of(fields) };
    let status = (0..ROWS).map(|n| ["placed", "paid", "packed", "shipped"][n % 4]);
    let columns: Vec<ArrayRef> =
        vec![Arc::new((0..).take(ROWS).collect::<Int64Array>()), Arc::new(StringArray::from_iter_values(status))];
    let batch = RecordBatch::try_new(table.to_arrow(), columns).unwrap();
    for condition in [
        "true",
        "amount >= 0",
        "status <> 'test' AND amount >= 0",
        "status LIKE '%a%' OR amount % 7 = 3",
        "10 / (amount % 1000) >= 0",
    ] {
        let filter = planned(condition, &table);
        let begun = std::time::Instant::now();
        let mut kept = 0;
        for _ in 0..200 {
            kept = filter.decide(&batch).unwrap().kept.true_count();
        }
        let nanos = begun.elapsed().as_nanos() as f64 / (200 * ROWS) as f64;
        println!("{nanos:8.2} ns per row, {kept} of {ROWS} kept: {condition}");
    }
}
