//! What schemas change about the columns of tables in format 3: defaults.

use super::*;
use crate::decode::MessagePath;
use crate::decode::avro::names::parse_text;
use crate::decode::layout::{Format, Given, KeyColumns, Metadata, MetadataNames, Tombstones};
use crate::decode::mapping::{MappingOptions, TableFormat};
use crate::decode::schema::{Columns, Schema};

fn layout(format: TableFormat) -> Layout {
    Layout {
        key_format: Format::None,
        key_columns: KeyColumns::None,
        value_format: Format::Registry,
        names: MetadataNames::Kafka,
        metadata: vec![Metadata::Offset],
        mapping: MappingOptions { format, ..MappingOptions::default() },
        tombstones: Tombstones::Keep,
        record_bytes_max: 1 << 20,
        evolution: Evolution::Extend,
        partitioned: Vec::new(),
        pinned: Vec::new(),
        given: Given::default(),
        projection: std::sync::Arc::default(),
    }
}

fn columns(layout: &Layout, fields: &str) -> TableSchema {
    let text = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
    let columns = Schema::Avro(parse_text(&text).unwrap()).columns(MessagePath::FIRST, layout.mapping).unwrap();
    layout.table_schema(Columns::Nothing, columns).unwrap()
}

const FIRST: &str = r#"{"name":"id","type":"long"}"#;
const MORE: &str = r#"{"name":"id","type":"long"},{"name":"n","type":"int","default":7},{"name":"m","type":["null","int"],"default":null}"#;

#[test]
fn what_a_later_version_adds_has_its_default_in_format_3() {
    for (format, expected) in [(TableFormat::V2, None), (TableFormat::V3, Some(vec![7, 0, 0, 0]))] {
        let layout = layout(format);
        let table = columns(&layout, FIRST);
        let changed = evolved(&table, &columns(&layout, MORE), &layout).unwrap().unwrap();
        let marks = &changed.field("n").unwrap().marks;
        assert_eq!((&marks.initial_default, &marks.write_default), (&expected, &expected));
        assert_eq!(changed.field("m").unwrap().marks, Marks::default(), "null is no default");
        // A later default changes nothing.
        let other = columns(&layout, &MORE.replace('7', "8"));
        assert_eq!(evolved(&changed, &other, &layout), Ok(None));
    }
}

#[test]
fn another_kind_of_record_has_no_defaults_for_the_rows_of_others() {
    let layout = layout(TableFormat::V3);
    for fields in ["", r#"{"name":"other","type":"string"}"#, &format!(r#"{FIRST},{{"name":"other","type":"string"}}"#)]
    {
        let table = columns(&layout, fields);
        let changed = evolved(&table, &columns(&layout, MORE), &layout).unwrap().unwrap();
        assert_eq!(changed.field("n").unwrap().marks, Marks::default(), "{fields}");
    }
}

#[test]
fn what_tells_rows_apart_is_never_relaxed() {
    let layout = layout(TableFormat::V2);
    let mut table = columns(&layout, FIRST);
    table.fields[0].required = true;
    let relaxed = evolved(&table, &columns(&layout, FIRST), &layout).unwrap().unwrap();
    assert!(!relaxed.fields[0].required);
    table.fields[0].marks.identifies = true;
    let refused = evolved(&table, &columns(&layout, FIRST), &layout).unwrap_err();
    assert_eq!(refused, "column `id` tells the table's rows apart and cannot be null");
}
