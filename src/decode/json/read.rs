//! What compiled programs are made of, and how each part reads a value and appends it to its column.

use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::{AHashMap, AHashSet};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::cursor::{Cursor, Position, Stop, Text};
use super::rescue::{Frame, Rescue};
use super::trim::trim;
use super::union::Union;
use super::{map, number, temporal};
use crate::decode::columns::{Column, Struct};
use crate::model::projection::{ALL, Projection};

/// A record being read.
#[derive(Debug)]
pub(super) struct Run<'a> {
    pub(super) cursor: Cursor<'a>,
    /// The rescue column, where the table has one.
    pub(super) rescue: Option<Rescue>,
    /// True where a value in a list, map or union had members without a column.
    pub(super) unknown: bool,
}

/// An object: which members go where.
#[derive(Debug, Default)]
pub(super) struct Plan {
    slots: Vec<Slot>,
    by_name: AHashMap<Box<[u8]>, usize>,
    /// The slot that came first in the last record: a guess, and what it is worth is only time.
    first: AtomicUsize,
    /// Columns that no member fills.
    pub(super) absent: Vec<usize>,
    /// Members that go nowhere.
    left_out: LeftOut,
}

/// Members that the table is not to have: those listed, and of others those that the choice does not take.
#[derive(Debug, Default)]
struct LeftOut {
    listed: AHashSet<Box<[u8]>>,
    choice: Option<Projection>,
}

/// A member and its column.
#[derive(Debug)]
pub(super) struct Slot {
    /// The member's name.
    pub(super) name: Box<[u8]>,
    /// Quotes, name and colon as most producers write them; empty where the name needs escapes.
    lead: Box<[u8]>,
    pub(super) column: usize,
    pub(super) item: Item,
    /// What is to be had of fields inside it.
    pub(super) inside: Projection,
    /// The slot that followed in the last record.
    next: AtomicUsize,
}

/// A value of a member, list or map.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) op: Op,
    /// True where its column has no place for null.
    pub(super) required: bool,
}

/// How a value that is not null is read into its column.
#[derive(Debug)]
pub(super) enum Op {
    Boolean,
    Int,
    Long,
    LongTimes(i64),
    Float,
    Double,
    /// Precision and scale; a number, exact, or its digits' bytes in base64, as Kafka Connect writes them.
    ConnectDecimal(u8, u8),
    /// The same, the digits as text.
    TextDecimal(u8, u8),
    Text,
    /// The value as it is written, but for fields that are not to be had.
    Json(Projection),
    Base64,
    Base64Fixed,
    Date,
    Time,
    /// With a zone, or without.
    Timestamp(bool, i64),
    Uuid,
    /// Milliseconds since midnight as microseconds, or as text.
    TimeMillis,
    TimeMillisText,
    Struct(Plan),
    List(Box<Item>),
    Map(Box<Item>),
    Entries(Plan),
    Union(Union),
}

/// Gives the column's inside if it is of the wanted variant; the compiler of programs made sure that it is.
macro_rules! column {
    ($column:expr, $variant:ident) => {
        match $column {
            Column::$variant(inner) => inner,
            _ => return Err(Stop::Misfit),
        }
    };
}
pub(super) use column;

impl Slot {
    pub(super) fn new(name: &str, column: usize, item: Item, inside: Projection) -> Self {
        let plain = !name.bytes().any(|byte| matches!(byte, b'"' | b'\\' | 0..0x20));
        let lead = if plain { format!("\"{name}\":") } else { String::new() };
        let (name, lead) = (name.as_bytes().into(), lead.into_bytes().into());
        Self { name, lead, column, item, inside, next: AtomicUsize::new(0) }
    }

    /// Reads the next value, or rescues it: `key` is the member's name as the record writes it. True where it is the
    /// record's first of this name.
    #[inline]
    pub(super) fn read(
        &self,
        key: &[u8],
        run: &mut Run<'_>,
        columns: &mut [Column],
        rows: usize,
        frame: Option<&Frame<'_>>,
    ) -> Result<bool, Stop> {
        let column = &mut columns[self.column];
        // Of members of one name the last counts.
        let again = column.len() > rows;
        if again {
            column.truncate(rows);
        }
        run.cursor.peek()?;
        let start = run.cursor.position();
        let read = match (&self.item.op, frame) {
            (Op::Struct(plan), Some(frame)) => self.read_object(plan, key, run, column, frame),
            _ => self.item.read(run, column),
        };
        if read.is_ok() && !again && !run.unknown {
            return Ok(true);
        }
        let Some(frame) = frame else { return read.map(|()| !again) };
        let fits = read.is_ok() && !run.unknown;
        // A former value may lie in the rescue column: the last one has to follow it there.
        if !fits || run.rescue.as_ref().is_some_and(|rescue| !rescue.is_empty()) {
            self.rescue(read, key, start, run, column, rows, frame)?;
        }
        Ok(!again)
    }

    /// A misfit deeper down is that member's affair, unless its column is required.
    fn read_object(
        &self,
        plan: &Plan,
        key: &[u8],
        run: &mut Run<'_>,
        column: &mut Column,
        frame: &Frame<'_>,
    ) -> Result<(), Stop> {
        if run.cursor.peek()? != b'{' {
            return self.item.read(run, column);
        }
        let mark = run.rescue.as_ref().map(Rescue::mark);
        let inner = frame.member(key);
        let read = plan.structure(run, column!(column, Struct), Some(&inner));
        if let (Some(rescue), Some(mark)) = (&mut run.rescue, mark) {
            match read {
                Ok(()) => rescue.leave(&inner),
                Err(_) => rescue.cut(mark),
            }
        }
        read
    }

    #[cold]
    #[expect(clippy::too_many_arguments, reason = "the other half of `read`, kept out of the hot path")]
    fn rescue(
        &self,
        read: Result<(), Stop>,
        key: &[u8],
        start: Position,
        run: &mut Run<'_>,
        column: &mut Column,
        rows: usize,
        frame: &Frame<'_>,
    ) -> Result<(), Stop> {
        if let Err(stop) = read {
            if !stop.is_misfit() || self.item.required {
                return Err(stop);
            }
            column.truncate(rows);
            column.push_null();
        }
        run.unknown = false;
        run.cursor.go_back(start);
        match &mut run.rescue {
            Some(rescue) => rescue.put(frame, key, |out| trim(&mut run.cursor, Some(&self.item.op), &self.inside, out)),
            None => run.cursor.skip().map(|_| ()),
        }
    }
}

impl Plan {
    pub(super) fn new(slots: Vec<Slot>, absent: Vec<usize>) -> Self {
        let by_name = slots.iter().enumerate().map(|(index, slot)| (slot.name.clone(), index)).collect();
        for (index, slot) in slots.iter().enumerate() {
            slot.next.store(index + 1, Ordering::Relaxed);
        }
        Self { slots, by_name, first: AtomicUsize::new(0), absent, left_out: LeftOut::default() }
    }

    /// The plan, with members that go nowhere: those `listed`, and of members without a slot those that `choice` does
    /// not take.
    pub(super) fn leaving_out(self, listed: Vec<Box<[u8]>>, choice: &Projection) -> Self {
        let choice = Some(choice).filter(|choice| !choice.takes_all()).map(|choice| choice.inside(""));
        Self { left_out: LeftOut { listed: listed.into_iter().collect(), choice }, ..self }
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    pub(super) fn structure(
        &self,
        run: &mut Run<'_>,
        column: &mut Struct,
        frame: Option<&Frame<'_>>,
    ) -> Result<(), Stop> {
        self.run(run, &mut column.children, frame)?;
        column.close();
        Ok(())
    }

    /// Reads an object. With a `frame` its misfits and unknown members are rescued; without, misfits are errors.
    pub(super) fn run(&self, run: &mut Run<'_>, columns: &mut [Column], frame: Option<&Frame<'_>>) -> Result<(), Stop> {
        let rows = self.slots.first().map_or(0, |slot| columns[slot.column].len());
        run.cursor.open(b'{')?;
        let (mut hint, mut filled, mut first) = (&self.first, 0, true);
        while run.cursor.more(b'}', first)? {
            first = false;
            let start = run.cursor.position();
            let expected = hint.load(Ordering::Relaxed);
            let (slot, key) = match self.slots.get(expected) {
                Some(slot) if run.cursor.eat(&slot.lead) => (Some(slot), run.cursor.read(start, slot.lead.len() - 1)),
                _ => {
                    let name = run.cursor.key()?;
                    let index = self.find(name);
                    match index {
                        Some(index) => hint.store(index, Ordering::Relaxed),
                        None if self.leaves_out(name) => {
                            run.cursor.skip()?;
                            continue;
                        }
                        None => {}
                    }
                    (index.map(|index| &self.slots[index]), run.cursor.read(start, name.raw.len() + 2))
                }
            };
            match slot {
                Some(slot) => {
                    hint = &slot.next;
                    filled += usize::from(slot.read(key, run, columns, rows, frame)?);
                }
                None => unknown(key, self.left_out.choice.as_ref(), run, frame)?,
            }
        }
        if filled < self.slots.len() || !self.absent.is_empty() {
            self.fill_absent(columns, rows)?;
        }
        Ok(())
    }

    /// The slot of a member.
    pub(super) fn slot(&self, name: Text<'_>) -> Option<&Slot> {
        self.find(name).map(|index| &self.slots[index])
    }

    /// True where a member without slot is not to be had.
    pub(super) fn leaves_out(&self, name: Text<'_>) -> bool {
        self.left_out.has(name)
    }

    fn find(&self, name: Text<'_>) -> Option<usize> {
        if name.escaped {
            return self.by_name.get(name.to_vec().as_slice()).copied();
        }
        self.by_name.get(name.raw).copied()
    }

    /// A member that is not there is null: a schema's `default` is for whoever writes it into the record.
    fn fill_absent(&self, columns: &mut [Column], rows: usize) -> Result<(), Stop> {
        for slot in &self.slots {
            let column = &mut columns[slot.column];
            if column.len() == rows {
                if slot.item.required {
                    return Err(Stop::Required);
                }
                column.push_null();
            }
        }
        self.absent.iter().for_each(|index| columns[*index].push_null());
        Ok(())
    }
}

impl LeftOut {
    fn has(&self, name: Text<'_>) -> bool {
        if self.listed.is_empty() && self.choice.is_none() {
            return false;
        }
        let unescaped = if name.escaped { name.to_vec() } else { Vec::new() };
        let name = if name.escaped { unescaped.as_slice() } else { name.raw };
        self.listed.contains(name)
            || self.choice.as_ref().is_some_and(|choice| !choice.takes(&String::from_utf8_lossy(name)))
    }
}

#[cold]
fn unknown(key: &[u8], choice: Option<&Projection>, run: &mut Run<'_>, frame: Option<&Frame<'_>>) -> Result<(), Stop> {
    let (Some(rescue), Some(frame)) = (&mut run.rescue, frame) else {
        run.unknown = run.rescue.is_some();
        run.cursor.skip()?;
        return Ok(());
    };
    let inside = choice.map(|choice| choice.inside(&serde_json::from_slice::<String>(key).unwrap_or_default()));
    rescue.put(frame, key, |out| trim(&mut run.cursor, None, inside.as_ref().unwrap_or(&ALL), out))
}

impl Item {
    /// Reads the next value, null or not.
    #[inline]
    pub(super) fn read(&self, run: &mut Run<'_>, column: &mut Column) -> Result<(), Stop> {
        if run.cursor.peek()? == b'n' {
            run.cursor.word(b"null")?;
            if self.required {
                return Err(Stop::Required);
            }
            column.push_null();
            return Ok(());
        }
        self.op.read(run, column)
    }
}

impl Op {
    #[inline]
    fn read(&self, run: &mut Run<'_>, column: &mut Column) -> Result<(), Stop> {
        let cursor = &mut run.cursor;
        match self {
            Self::Text => {
                let text = cursor.text()?;
                let column = column!(column, Bytes);
                if text.escaped {
                    text.pieces(|piece| column.append(piece));
                    column.end();
                } else {
                    column.push(text.raw);
                }
            }
            Self::Long => column!(column, Int64).push(cursor.long()?),
            Self::Double => column!(column, Float64).push(number::double(cursor.number()?)?),
            Self::Boolean => column!(column, Boolean).push(cursor.boolean()?),
            Self::Int => {
                column!(column, Int32).push(i32::try_from(cursor.long()?).map_err(|_| Stop::OutOfRange)?);
            }
            Self::LongTimes(factor) => {
                column!(column, Int64).push(cursor.long()?.checked_mul(*factor).ok_or(Stop::OutOfRange)?);
            }
            Self::Float => column!(column, Float32).push(number::float(cursor.number()?)?),
            Self::Json(inside) => column!(column, Bytes).push_by(|out| trim(cursor, None, inside, out))?,
            Self::Struct(plan) => return plan.structure(run, column!(column, Struct), None),
            Self::List(item) => {
                let list = column!(column, List);
                elements(run, |run| item.read(run, &mut list.child))?;
                list.close();
            }
            Self::Map(item) => return map::read(item, run, column!(column, Map)),
            Self::Entries(plan) => {
                let map = column!(column, Map);
                let entries = column!(map.child.as_mut(), Struct);
                elements(run, |run| plan.structure(run, entries, None))?;
                map.close();
            }
            Self::Union(union) => return union.structure(run, column!(column, Struct)),
            _ => return self.read_rare(cursor, column),
        }
        Ok(())
    }

    fn read_rare(&self, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Stop> {
        match self {
            Self::ConnectDecimal(precision, scale) | Self::TextDecimal(precision, scale) => {
                let value = if cursor.peek()? != b'"' {
                    number::decimal(cursor.number()?, *precision, *scale)?
                } else if matches!(self, Self::ConnectDecimal(..)) {
                    number::decimal_of_bytes(&base64(cursor.text()?)?, *precision)?
                } else {
                    let text = cursor.text()?.to_vec();
                    let mut inner = Cursor::new(&text)?;
                    let number = inner.number().map_err(|_| Stop::Misfit)?;
                    inner.end().map_err(|_| Stop::Misfit)?;
                    number::decimal(number, *precision, *scale)?
                };
                column!(column, Decimal).push(value);
            }
            Self::Base64 => column!(column, Bytes).push(&base64(cursor.text()?)?),
            Self::Base64Fixed => {
                let bytes = base64(cursor.text()?)?;
                let column = column!(column, Fixed);
                if bytes.len() != column.size() {
                    return Err(Stop::Misfit);
                }
                column.push(&bytes);
            }
            Self::Date => column!(column, Int32).push(parsed(cursor, temporal::date)?),
            Self::Time => column!(column, Int64).push(parsed(cursor, temporal::time)?),
            Self::Timestamp(zoned, per_second) => {
                let ticks = parsed(cursor, |text| temporal::timestamp(text, *zoned, *per_second))?;
                column!(column, Int64).push(ticks);
            }
            Self::Uuid => {
                let uuid = parsed(cursor, |text| uuid::Uuid::try_parse_ascii(text).ok().filter(|_| text.len() == 36))?;
                column!(column, Fixed).push(uuid.as_bytes());
            }
            Self::TimeMillis => column!(column, Int64).push(millis_of_day(cursor)? * 1_000),
            Self::TimeMillisText => {
                let millis = millis_of_day(cursor)?;
                let (seconds, micros) = (millis / 1_000, millis % 1_000 * 1_000);
                let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
                let mut text = [0; 15];
                let _ = write!(&mut text[..], "{hour:02}:{minute:02}:{second:02}.{micros:06}");
                column!(column, Bytes).push(&text);
            }
            _ => return Err(Stop::Misfit),
        }
        Ok(())
    }
}

/// Calls `read` for each element of the array that is the next value.
fn elements<'a>(run: &mut Run<'a>, mut read: impl FnMut(&mut Run<'a>) -> Result<(), Stop>) -> Result<(), Stop> {
    run.cursor.open(b'[')?;
    let mut first = true;
    while run.cursor.more(b']', first)? {
        first = false;
        read(run)?;
    }
    Ok(())
}

fn parsed<T>(cursor: &mut Cursor<'_>, parse: impl Fn(&[u8]) -> Option<T>) -> Result<T, Stop> {
    let text = cursor.text()?;
    let value = if text.escaped { parse(&text.to_vec()) } else { parse(text.raw) };
    value.ok_or(Stop::Misfit)
}

fn base64(text: Text<'_>) -> Result<Vec<u8>, Stop> {
    let bytes = if text.escaped { BASE64.decode(text.to_vec()) } else { BASE64.decode(text.raw) };
    bytes.map_err(|_| Stop::Misfit)
}

fn millis_of_day(cursor: &mut Cursor<'_>) -> Result<i64, Stop> {
    let millis = cursor.long()?;
    if (0..86_400_000).contains(&millis) { Ok(millis) } else { Err(Stop::OutOfRange) }
}
