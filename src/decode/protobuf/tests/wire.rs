//! What the wire format allows and serializers rarely do, byte by byte, and what is wrong with bytes.

use super::{decode, first, proto3, registered};
use crate::decode::mapping::{MappingOptions, OneofAs};
use crate::decode::protobuf::mapping::columns;
use crate::decode::protobuf::wire::write_varint;
use crate::model::decoded::Reason;

#[test]
fn values_that_come_more_than_once() {
    let body = "message M { int32 a = 1; N n = 2; repeated int32 l = 3; oneof g { int32 x = 4; N y = 5; string z = 6; }
        map<int32, N> m = 7; google.protobuf.Timestamp t = 8; repeated N ns = 9; google.protobuf.Struct s = 10;
        string text = 11; } message N { int32 b = 1; repeated int32 c = 2; N2 d = 3; }
        message N2 { int32 e = 1; int32 f = 2; }";
    let (message, _) = first(&proto3(body));
    let row = |bytes: &[u8]| {
        let row = decode(&message, MappingOptions::default(), &[bytes.to_vec()]).remove(0).unwrap();
        let empty = ["a=0", "n=null", "l=[]", "m=[]", "t=null", "ns=[]", "s=null", "text=\"\"", "g=null"];
        let mut shown = format!(",{row},");
        empty.iter().for_each(|empty| shown = shown.replace(&format!(",{empty},"), ","));
        shown.trim_matches(',').to_owned()
    };
    for (bytes, expected) in [
        // The last single value wins, in any order of fields.
        (&[8, 1, 8, 2][..], "a=2"),
        (&[90, 1, b'x', 8, 1, 90, 1, b'y'], "a=1,text=\"y\""),
        // Pieces of one message are put together.
        (&[18, 2, 8, 1, 18, 2, 16, 2], "n={b=1,c=[2],d=null}"),
        (&[18, 4, 26, 2, 8, 1, 18, 4, 26, 2, 16, 2], "n={b=0,c=[],d={e=1,f=2}}"),
        (&[18, 8, 26, 2, 8, 1, 26, 2, 16, 2], "n={b=0,c=[],d={e=1,f=2}}"),
        (&[66, 2, 8, 1, 66, 3, 16, 0xe8, 7], "t=1000001"),
        // Elements of a list may lie apart, packed or not.
        (&[24, 1, 8, 5, 26, 2, 2, 3, 24, 4, 26, 0], "a=5,l=[1,2,3,4]"),
        (&[74, 2, 8, 1, 74, 0], "ns=[{b=1,c=[],d=null},{b=0,c=[],d=null}]"),
        (&[74, 8, 26, 2, 8, 1, 26, 2, 16, 2], "ns=[{b=0,c=[],d={e=1,f=2}}]"),
        // The last member of a oneof wins; pieces of one member are put together, but not across another.
        (&[32, 1, 50, 1, b'z'], "g={x=null,y=null,z=\"z\"}"),
        (&[50, 1, b'z', 32, 0], "g={x=0,y=null,z=null}"),
        (&[42, 2, 8, 1, 42, 2, 16, 2], "g={x=null,y={b=1,c=[2],d=null},z=null}"),
        (&[42, 2, 8, 1, 32, 3, 42, 2, 16, 2], "g={x=null,y={b=0,c=[2],d=null},z=null}"),
        (&[42, 4, 16, 1, 16, 2, 32, 3], "g={x=3,y=null,z=null}"),
        // The last entry of a key wins; what an entry lacks is zero, also with the parts in the other order.
        (&[58, 4, 8, 1, 18, 0, 58, 6, 8, 1, 18, 2, 8, 7], "m=[{key=1,value={b=7,c=[],d=null}}]"),
        (&[58, 0, 58, 6, 18, 2, 8, 9, 8, 1], "m=[{key=0,value={b=0,c=[],d=null}},{key=1,value={b=9,c=[],d=null}}]"),
        (&[58, 0, 58, 2, 8, 0], "m=[{key=0,value={b=0,c=[],d=null}}]"),
        (&[58, 10, 8, 1, 8, 2, 18, 0, 18, 2, 8, 4], "m=[{key=2,value={b=4,c=[],d=null}}]"),
        // Unknown fields of each wire type.
        (&[0xa0, 6, 1, 0xa1, 6, 1, 2, 3, 4, 5, 6, 7, 8, 0xa2, 6, 1, 9, 0xa5, 6, 1, 2, 3, 4, 8, 7], "a=7"),
        (&[0xa3, 6, 8, 1, 0xab, 6, 18, 1, 0, 0xac, 6, 0xa4, 6, 8, 7], "a=7"),
        // A wire type that is not the field's: unknown.
        (&[13, 1, 2, 3, 4, 10, 1, 1, 16, 5, 25, 1, 2, 3, 4, 5, 6, 7, 8, 8, 7], "a=7"),
        // Integers of more bits than declared are cut off.
        (&[8, 0x83, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], "a=3"),
        (&[8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], "a=-1"),
        (&[8, 0x85, 0], "a=5"),
        // A struct of JSON in pieces.
        (&[82, 5, 10, 3, 10, 1, b'k', 82, 5, 10, 3, 10, 1, b'j'], "s=\"{\\\"k\\\":null,\\\"j\\\":null}\""),
    ] {
        assert_eq!(row(bytes), expected, "{bytes:?}");
    }
    // Many keys are compared by their hashes.
    let entries: Vec<u8> = (0..40).flat_map(|i| [58, 6, 8, i % 20, 18, 2, 8, i]).collect();
    let shown = row(&entries);
    assert_eq!(shown.matches("key=").count(), 20);
    assert!(shown.contains("{key=3,value={b=23,"), "{shown}");
}

#[test]
fn oneofs_beside_other_columns_and_long_messages() {
    let flat = MappingOptions { oneof: OneofAs::Flat, ..MappingOptions::default() };
    let (message, _) = first(&proto3("message M { oneof g { int32 x = 1; string y = 2; E z = 3; } message E {} }"));
    let rows = decode(&message, flat, &[vec![8, 1, 18, 0], vec![18, 0, 8, 1], vec![8, 1, 26, 0], vec![]]);
    assert_eq!(rows, ["x=null,y=\"\"", "x=1,y=null", "x=null,y=null", "x=null,y=null"].map(|row| Ok(row.to_owned())));
    // More fields than the set on the stack holds, and numbers beyond the dense ones.
    let fields = (1..=400).map(|i| format!("optional int32 f{i} = {}; ", i * 7)).collect::<Vec<_>>().concat();
    let (message, _) = first(&proto3(&format!("message M {{ {fields} }}")));
    let mut bytes = Vec::new();
    for i in (1..=400_u64).rev().filter(|i| i % 3 == 0) {
        write_varint(&mut bytes, (i * 7) << 3);
        write_varint(&mut bytes, i);
    }
    let row = decode(&message, MappingOptions::default(), &[bytes]).remove(0).unwrap();
    let expected = (1..=400).map(|i| if i % 3 == 0 { format!("f{i}={i}") } else { format!("f{i}=null") });
    assert_eq!(row, expected.collect::<Vec<_>>().join(","));
}

#[test]
fn what_is_wrong_with_bytes() {
    let (message, _) = first(&proto3(
        "message M { int32 a = 1; string s = 2; M m = 3; repeated int32 l = 4; N n = 5; }
        message N { string t = 1; }",
    ));
    let reason =
        |bytes: Vec<u8>| decode(&message, MappingOptions::default(), &[bytes]).remove(0).map(drop).unwrap_err();
    for (bytes, expected) in [
        (&[8][..], Reason::Truncated),
        (&[8, 0x80], Reason::Truncated),
        (&[18, 5, b'x'], Reason::Truncated),
        (&[18, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1], Reason::Truncated),
        (&[34, 2, 1, 0x80], Reason::Truncated),
        (&[42, 2, 10, 1], Reason::Truncated),
        (&[0xa5, 6, 1, 2, 3], Reason::Truncated),
        (&[0xa3, 6, 8, 1], Reason::Truncated),
        (&[8, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1], Reason::TypeMismatch),
        (&[18, 1, 0xff], Reason::TypeMismatch),
        (&[42, 3, 10, 1, 0xc3], Reason::TypeMismatch),
        (&[26, 3, 18, 1, 0xff], Reason::TypeMismatch),
        (&[0, 1], Reason::TypeMismatch),
        (&[12], Reason::TypeMismatch),
        (&[14], Reason::TypeMismatch),
        (&[0xa3, 6, 12], Reason::TypeMismatch),
        (&[0x80, 0x80, 0x80, 0x80, 0x10], Reason::TypeMismatch),
    ] {
        assert_eq!(reason(bytes.to_vec()), expected, "{bytes:?}");
    }
    let nested = |levels: usize| {
        (0..levels).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut outer = vec![26];
            write_varint(&mut outer, inner.len() as u64);
            [outer, inner].concat()
        })
    };
    assert_eq!(decode(&message, MappingOptions::default(), &[nested(90)]).iter().filter(|row| row.is_ok()).count(), 1);
    assert_eq!(reason(nested(110)), Reason::TooLarge);
    assert_eq!(reason([0xa3, 6].repeat(110)), Reason::TooLarge);
    // So deep that a stack would not hold it.
    assert_eq!(reason([0xa3, 6].repeat(1_000_000)), Reason::TooLarge);
    assert_eq!(reason(nested(20_000)), Reason::TooLarge);
}

#[test]
fn a_short_schema_cannot_ask_for_columns_without_end() {
    let levels =
        (0..40).map(|i| format!("message M{i} {{ M{0} a = 1; M{0} b = 2; }}", i + 1)).collect::<Vec<_>>().concat();
    let text = format!("syntax = \"proto3\"; {levels} message M40 {{ int32 x = 1; }}");
    let (message, _) = first(&registered(&text));
    let error = columns(&message, MappingOptions::default()).unwrap_err();
    assert!(error.chain().contains("too many"), "{}", error.chain());
    // What is wide and deep within the bound is compiled too, whose compiler walks the inner messages once a level.
    let fields = (0..2_000).map(|i| format!("int32 f{i} = {}; ", i + 2)).collect::<Vec<_>>().concat();
    let levels = (0..15).map(|i| format!("message M{i} {{ M{} a = 1; }}", i + 1)).collect::<Vec<_>>().concat();
    let (message, _) = first(&registered(&format!("syntax = \"proto3\"; {levels} message M15 {{ {fields} }}")));
    assert_eq!(decode(&message, MappingOptions::default(), &[Vec::new()]).iter().filter(|row| row.is_ok()).count(), 1);
    let deep = (0..200).map(|i| format!("message M{i} {{ M{} a = 1; }}", i + 1)).collect::<Vec<_>>().concat();
    let (message, _) = first(&registered(&format!("syntax = \"proto3\"; {deep} message M200 {{ int32 x = 1; }}")));
    assert!(columns(&message, MappingOptions::default()).is_err());
}
