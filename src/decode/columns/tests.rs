//! Cutting back what is half appended.

use super::*;
use crate::model::schema::Field;

#[test]
fn truncating_removes_half_appended_nested_values() {
    let element = Field::optional("element", Type::Struct(vec![Field::optional("a", Type::String)]));
    let kind = Type::List(Box::new(element));
    let mut column = Column::new(&kind);
    let append = |column: &mut Column, texts: &[&str], close: bool| {
        let Column::List(list) = column else { unreachable!() };
        for text in texts {
            let Column::Struct(child) = list.child.as_mut() else { unreachable!() };
            let Column::Bytes(bytes) = &mut child.children[0] else { unreachable!() };
            bytes.push(text.as_bytes());
            child.close();
        }
        if close {
            list.close();
        }
    };
    append(&mut column, &["x", "y"], true);
    column.push_null();
    append(&mut column, &["half"], false);
    column.truncate(2);
    append(&mut column, &["z"], true);
    let array = column.finish(&kind.to_arrow()).unwrap();
    let list = array.as_any().downcast_ref::<ListArray>().unwrap();
    assert_eq!(list.len(), 3);
    assert_eq!((list.value_length(0), list.is_null(1), list.value_length(2)), (2, true, 1));
    assert_eq!(list.values().len(), 3);
}

#[test]
fn nulls_survive_truncation_at_every_length() {
    for cut in 0..20 {
        let mut nulls = Nulls::default();
        let valid = |i: usize| !i.is_multiple_of(3);
        (0..20).for_each(|i| nulls.push(valid(i)));
        nulls.truncate(cut);
        (cut..23).for_each(|i| nulls.push(valid(i + 1)));
        let buffer = nulls.finish().unwrap();
        for i in 0..23 {
            assert_eq!(buffer.is_valid(i), valid(if i < cut { i } else { i + 1 }), "cut {cut} slot {i}");
        }
    }
}
