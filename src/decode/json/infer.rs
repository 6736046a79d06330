//! Columns for JSON without a schema: a table's own, and those that records bring.
//!
//! A column that the table has stays as it is, but for fields that its structs gain: values of another type are
//! rescued, since Iceberg promotes no type to another one that JSON tells apart. Of a column that is still to be made
//! all values seen count: whole numbers and others make doubles, other mixes JSON text. Nothing becomes a date, and
//! what has no type yet (null, empty arrays and objects) no column.

use ahash::AHashMap;

use super::cursor::{Cursor, Stop, Text};
use super::mapping::{inferred, member_of};
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};

/// Columns that are inferred for one table, nested fields included; members beyond are rescued.
const COLUMNS_MAX: usize = 1_000;

/// Objects inside each other that become columns; the record itself is the first.
const DEPTH_MAX: usize = 16;

/// What is known of a table's columns.
#[derive(Debug, Clone, Default)]
pub struct Inferred {
    record: Members,
    /// Members that have or get columns.
    count: usize,
}

#[derive(Debug, Clone, Default)]
struct Members {
    /// In order of appearance, the table's first.
    list: Vec<Member>,
    by_key: AHashMap<Box<[u8]>, usize>,
    /// Columns of the table that are not the record's to fill: their names are taken.
    taken: Vec<Field>,
    /// Which of the members are to have columns, and what those are called.
    projection: Projection,
    /// True where the table has this struct.
    settled: bool,
}

/// A member of an object; without a key the element of a list.
#[derive(Debug, Clone, Default)]
struct Member {
    key: String,
    /// The table's column, where it has one.
    column: Option<Field>,
    /// Which fields inside it are to be had.
    inside: Projection,
    seen: Seen,
}

#[derive(Debug, Clone, Default)]
enum Seen {
    #[default]
    Nothing,
    Boolean,
    Long,
    Double,
    String,
    /// Values that share no type.
    Mixed,
    Struct(Members),
    List(Box<Member>),
    /// What the table has, whatever is seen.
    Settled(Type),
}

impl Inferred {
    /// The columns of `table` that `open` lists, to which records may add; the names of the others are taken.
    #[must_use]
    pub fn new(table: &[Field], open: &[usize], projection: &Projection) -> Self {
        let (of_record, taken): (Vec<_>, Vec<_>) =
            table.iter().enumerate().partition(|(index, _)| open.contains(index));
        let mut count = 0;
        let of_record: Vec<&Field> = of_record.into_iter().map(|(_, field)| field).collect();
        let mut record = Members::of(&of_record, projection, &mut count);
        record.taken.extend(taken.into_iter().map(|(_, field)| field.clone()));
        Self { record, count }
    }

    /// Takes a record into account. One that is no JSON object is none of a table's rows, and is ignored.
    pub fn see(&mut self, bytes: &[u8]) {
        let sound = || {
            let mut cursor = Cursor::new(bytes)?;
            let start = cursor;
            cursor.skip()?;
            cursor.end()?;
            Ok::<_, Stop>(start)
        };
        if let Ok(mut cursor) = sound()
            && cursor.peek() == Ok(b'{')
        {
            // The text has just been read whole: nothing can stop it now.
            let _ = self.record.see(&mut cursor, 1, &mut self.count);
        }
    }

    /// The columns: the table's in their order, with the fields that their structs gain, and the new ones behind.
    #[must_use]
    pub fn columns(&self) -> Vec<Field> {
        self.record.fields()
    }
}

impl Members {
    fn of(fields: &[&Field], projection: &Projection, count: &mut usize) -> Self {
        let mut members = Self { settled: true, projection: projection.clone(), ..Self::default() };
        for field in fields {
            let Some(key) = member_of(field, projection) else {
                members.taken.push((*field).clone());
                continue;
            };
            let inside = projection.inside(&key);
            let seen = Seen::of(&field.kind, &inside, count);
            members.push(Member { key: key.into_owned(), column: Some((*field).clone()), inside, seen }, count);
        }
        members
    }

    fn push(&mut self, member: Member, count: &mut usize) {
        self.by_key.insert(member.key.as_bytes().into(), self.list.len());
        self.list.push(member);
        *count += 1;
    }

    fn see(&mut self, cursor: &mut Cursor<'_>, depth: usize, count: &mut usize) -> Result<(), Stop> {
        cursor.open(b'{')?;
        let mut first = true;
        while cursor.more(b'}', first)? {
            first = false;
            let key = cursor.key()?;
            let known = if key.escaped { self.by_key.get(&*key.to_vec()) } else { self.by_key.get(key.raw) };
            match known {
                Some(index) => self.list[*index].see(cursor, depth, count)?,
                None => self.see_new(key, cursor, depth, count)?,
            }
        }
        Ok(())
    }

    fn see_new(&mut self, key: Text<'_>, cursor: &mut Cursor<'_>, depth: usize, count: &mut usize) -> Result<(), Stop> {
        let key = String::from_utf8(key.to_vec()).unwrap_or_default();
        if *count >= COLUMNS_MAX || key.is_empty() || !self.projection.takes(&key) {
            cursor.skip()?;
            return Ok(());
        }
        let inside = self.projection.inside(&key);
        let mut member = Member { key, inside, ..Member::default() };
        member.see(cursor, depth, count)?;
        if member.seen.kind().is_some() {
            self.push(member, count);
        }
        Ok(())
    }

    fn fields(&self) -> Vec<Field> {
        let mut fields = self.taken.clone();
        for member in &self.list {
            let Some(kind) = member.seen.kind() else { continue };
            fields.push(match &member.column {
                Some(column) => Field { kind, ..column.clone() },
                None => {
                    let is_json = matches!(member.seen, Seen::Mixed);
                    inferred(&fields, &member.key, &self.projection, kind, is_json)
                }
            });
        }
        fields.split_off(self.taken.len())
    }
}

impl Seen {
    fn of(kind: &Type, inside: &Projection, count: &mut usize) -> Self {
        match kind {
            Type::Struct(fields) => Self::Struct(Members::of(&fields.iter().collect::<Vec<_>>(), inside, count)),
            Type::List(column) => {
                let mut element = Member::element(inside);
                element.seen = Self::of(&column.kind, &element.inside, count);
                element.column = Some(column.as_ref().clone());
                Self::List(Box::new(element))
            }
            _ => Self::Settled(kind.clone()),
        }
    }

    /// True where the table has it.
    fn is_settled(&self) -> bool {
        match self {
            Self::Settled(_) => true,
            Self::Struct(members) => members.settled,
            Self::List(element) => element.column.is_some(),
            _ => false,
        }
    }

    /// The type that takes all values seen; none where there is nothing to store.
    fn kind(&self) -> Option<Type> {
        Some(match self {
            Self::Nothing => return None,
            Self::Boolean => Type::Boolean,
            Self::Long => Type::Long,
            Self::Double => Type::Double,
            Self::String | Self::Mixed => Type::String,
            Self::Struct(members) => {
                let fields = members.fields();
                if fields.is_empty() {
                    return None;
                }
                Type::Struct(fields)
            }
            Self::List(element) => {
                let column = element.column.clone().unwrap_or_else(|| Field::optional("element", Type::String));
                Type::List(Box::new(Field { kind: element.seen.kind()?, ..column }))
            }
            Self::Settled(kind) => kind.clone(),
        })
    }

    fn see(
        &mut self,
        inside: &Projection,
        cursor: &mut Cursor<'_>,
        depth: usize,
        count: &mut usize,
    ) -> Result<(), Stop> {
        let value = match (cursor.peek()?, &mut *self) {
            (b'{' | b'[', _) if depth == DEPTH_MAX => Self::Nothing,
            (b'[', _) if !inside.takes("element") => Self::Nothing,
            (b'{', Self::Struct(members)) => return members.see(cursor, depth + 1, count),
            (b'[', Self::List(element)) => {
                element.see_all(cursor, depth + 1, count)?;
                // Comments tell JSON text apart, and elements of lists have none.
                if matches!(element.seen, Self::Mixed) {
                    *self = Self::Mixed;
                }
                return Ok(());
            }
            (b'{', Self::Nothing) => {
                let mut members = Members { projection: inside.clone(), ..Members::default() };
                members.see(cursor, depth + 1, count)?;
                *self = Self::Struct(members);
                return Ok(());
            }
            (b'[', Self::Nothing) => {
                *self = Self::List(Box::new(Member::element(inside)));
                return self.see(inside, cursor, depth, count);
            }
            (b'{' | b'[', empty) if !empty.is_settled() && empty.kind().is_none() => {
                *empty = Self::Nothing;
                return self.see(inside, cursor, depth, count);
            }
            (b'{' | b'[', _) => Self::Mixed,
            (b'"', _) => Self::String,
            (b't' | b'f', _) => Self::Boolean,
            (b'-' | b'0'..=b'9', _) => {
                let mut ahead = *cursor;
                let fraction = ahead.number()?.iter().any(|byte| b".eE".contains(byte));
                if fraction { Self::Double } else { Self::Long }
            }
            _ => Self::Nothing,
        };
        cursor.skip()?;
        self.mix(value);
        Ok(())
    }

    /// Takes into account a value that is no object or array like those before.
    fn mix(&mut self, value: Self) {
        if self.is_settled() {
            return;
        }
        *self = match (&self, value) {
            (_, Self::Nothing) => return,
            (Self::Boolean, Self::Boolean) | (Self::String, Self::String) | (Self::Long, Self::Long) => return,
            (Self::Double, Self::Long | Self::Double) => return,
            (Self::Long, Self::Double) => Self::Double,
            // Empty so far.
            (known, value) if known.kind().is_none() => value,
            _ => Self::Mixed,
        };
    }
}

impl Member {
    /// The element of a list, of which `inside` are the fields to be had.
    fn element(inside: &Projection) -> Self {
        Self { inside: inside.inside("element"), ..Self::default() }
    }

    fn see(&mut self, cursor: &mut Cursor<'_>, depth: usize, count: &mut usize) -> Result<(), Stop> {
        self.seen.see(&self.inside, cursor, depth, count)
    }

    /// Takes all elements of the array that is the next value into account.
    fn see_all(&mut self, cursor: &mut Cursor<'_>, depth: usize, count: &mut usize) -> Result<(), Stop> {
        cursor.open(b'[')?;
        let mut first = true;
        while cursor.more(b']', first)? {
            first = false;
            self.see(cursor, depth, count)?;
        }
        Ok(())
    }
}
