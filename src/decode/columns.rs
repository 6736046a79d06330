//! Growing columns that can be cut back: what decoders append to, and the Arrow arrays that come of it.
//!
//! Arrow's own builders cannot be truncated, and a record that fails half-way must leave nothing behind.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, ListArray, MapArray,
    PrimitiveArray, StringArray, StructArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Field as ArrowField, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, TimestampNanosecondType,
};

use crate::error::{Error, Result};
use crate::model::schema::Type;

/// Validity of a column's slots; costs nothing until the first null.
#[derive(Debug, Default)]
pub struct Nulls {
    len: usize,
    bits: Vec<u8>,
}

impl Nulls {
    #[inline]
    fn push(&mut self, valid: bool) {
        if !self.bits.is_empty() || !valid {
            self.bits.resize(self.len / 8 + 1, 0xff);
            if valid {
                self.bits[self.len / 8] |= 1 << (self.len % 8);
            } else {
                self.bits[self.len / 8] &= !(1 << (self.len % 8));
            }
        }
        self.len += 1;
    }

    fn truncate(&mut self, len: usize) {
        self.len = len;
        self.bits.truncate(len.div_ceil(8));
        if let Some(last) = self.bits.last_mut()
            && !len.is_multiple_of(8)
        {
            *last |= 0xff << (len % 8);
        }
    }

    fn finish(self) -> Option<NullBuffer> {
        if self.bits.is_empty() {
            return None;
        }
        let mut bits = self.bits;
        bits.resize(self.len.div_ceil(8), 0xff);
        Some(NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(bits), 0, self.len)))
    }
}

/// A column of fixed-width values.
#[derive(Debug, Default)]
pub struct Values<T> {
    values: Vec<T>,
    nulls: Nulls,
}

impl<T: Default> Values<T> {
    /// Appends a value.
    #[inline]
    pub fn push(&mut self, value: T) {
        self.values.push(value);
        self.nulls.push(true);
    }

    fn push_null(&mut self) {
        self.values.push(T::default());
        self.nulls.push(false);
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.nulls.truncate(len);
    }
}

/// A column of texts or byte strings.
#[derive(Debug)]
pub struct Bytes {
    ends: Vec<i32>,
    data: Vec<u8>,
    nulls: Nulls,
}

impl Default for Bytes {
    fn default() -> Self {
        Self { ends: vec![0], data: Vec::new(), nulls: Nulls::default() }
    }
}

impl Bytes {
    /// Appends a value. The caller keeps batches below 2 GiB.
    #[inline]
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.close(true);
    }

    /// Appends a value that `write` appends to the bytes.
    ///
    /// # Errors
    /// Those of `write`; half a value is left to be truncated.
    pub fn push_by<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        write(&mut self.data)?;
        self.close(true);
        Ok(())
    }

    /// Appends a piece of a value that [`Bytes::end`] ends.
    #[inline]
    pub fn append(&mut self, piece: &[u8]) {
        self.data.extend_from_slice(piece);
    }

    /// Appends a piece of a value that `write` writes.
    pub(super) fn append_by<E>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<(), E> {
        write(&mut self.data)
    }

    /// Ends the value whose pieces have just been appended.
    pub fn end(&mut self) {
        self.close(true);
    }

    /// Bytes of the value that is being appended.
    #[inline]
    pub fn pending(&self) -> usize {
        self.data.len() - self.start(self.ends.len() - 1)
    }

    /// Keeps the first `len` bytes of the value that is being appended.
    pub fn cut(&mut self, len: usize) {
        self.data.truncate(self.start(self.ends.len() - 1) + len);
    }

    /// The value in slot `index`; nothing where the slot is null.
    pub fn get(&self, index: usize) -> &[u8] {
        &self.data[self.start(index)..self.start(index + 1)]
    }

    fn start(&self, index: usize) -> usize {
        usize::try_from(self.ends[index]).unwrap_or(0)
    }

    #[inline]
    fn close(&mut self, valid: bool) {
        self.ends.push(i32::try_from(self.data.len()).unwrap_or(i32::MAX));
        self.nulls.push(valid);
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len + 1);
        self.data.truncate(usize::try_from(self.ends[len]).unwrap_or(0));
        self.nulls.truncate(len);
    }

    fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
        OffsetBuffer::new(ScalarBuffer::from(ends))
    }
}

/// A column of byte strings of one length.
#[derive(Debug)]
pub struct Fixed {
    size: usize,
    data: Vec<u8>,
    nulls: Nulls,
}

impl Fixed {
    /// Appends a value of exactly the column's length.
    pub fn push(&mut self, value: &[u8]) {
        debug_assert_eq!(value.len(), self.size);
        self.data.extend_from_slice(value);
        self.nulls.push(true);
    }

    /// Bytes of each value.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// A column of structs: one child column per field.
#[derive(Debug)]
pub struct Struct {
    /// Child columns, in the order of the type's fields.
    pub children: Vec<Column>,
    nulls: Nulls,
}

impl Struct {
    /// Marks the slot whose children have just been appended as a value.
    #[inline]
    pub fn close(&mut self) {
        self.nulls.push(true);
    }
}

/// A column of lists; for a map the child is a struct of key and value.
#[derive(Debug)]
pub struct List {
    ends: Vec<i32>,
    /// The elements of all lists, back to back.
    pub child: Box<Column>,
    nulls: Nulls,
}

impl List {
    /// Where the elements of the open list begin in the child.
    pub fn start(&self) -> usize {
        self.ends.last().and_then(|end| usize::try_from(*end).ok()).unwrap_or(0)
    }

    /// Ends the list whose elements have just been appended.
    #[inline]
    pub fn close(&mut self) {
        self.ends.push(i32::try_from(self.child.len()).unwrap_or(i32::MAX));
        self.nulls.push(true);
    }
}

/// A growing column of one of Iceberg's types.
#[derive(Debug)]
pub enum Column {
    /// Boolean.
    Boolean(Values<bool>),
    /// Int and date.
    Int32(Values<i32>),
    /// Long, time and timestamps.
    Int64(Values<i64>),
    /// Float.
    Float32(Values<f32>),
    /// Double.
    Float64(Values<f64>),
    /// Decimal.
    Decimal(Values<i128>),
    /// String (valid UTF-8) and binary.
    Bytes(Bytes),
    /// Uuid and fixed.
    Fixed(Fixed),
    /// Struct.
    Struct(Struct),
    /// List.
    List(List),
    /// Map: the child is a struct of key and value.
    Map(List),
}

impl Column {
    /// An empty column for values of `kind`.
    pub fn new(kind: &Type) -> Self {
        match kind {
            Type::Boolean => Self::Boolean(Values::default()),
            Type::Int | Type::Date => Self::Int32(Values::default()),
            Type::Long | Type::Time | Type::Timestamp | Type::TimestampTz => Self::Int64(Values::default()),
            Type::TimestampNs | Type::TimestampTzNs => Self::Int64(Values::default()),
            Type::Float => Self::Float32(Values::default()),
            Type::Double => Self::Float64(Values::default()),
            Type::Decimal(..) => Self::Decimal(Values::default()),
            Type::String | Type::Binary => Self::Bytes(Bytes::default()),
            Type::Uuid => Self::fixed(16),
            Type::Fixed(size) => Self::fixed(*size as usize),
            Type::Struct(fields) => Self::structure(fields.iter().map(|field| Self::new(&field.kind)).collect()),
            Type::List(element) => Self::List(list(Self::new(&element.kind))),
            Type::Map(key, value) => {
                Self::Map(list(Self::structure(vec![Self::new(&key.kind), Self::new(&value.kind)])))
            }
        }
    }

    fn fixed(size: usize) -> Self {
        Self::Fixed(Fixed { size, data: Vec::new(), nulls: Nulls::default() })
    }

    fn structure(children: Vec<Self>) -> Self {
        Self::Struct(Struct { children, nulls: Nulls::default() })
    }

    /// Slots.
    pub fn len(&self) -> usize {
        match self {
            Self::Boolean(c) => c.nulls.len,
            Self::Int32(c) => c.nulls.len,
            Self::Int64(c) => c.nulls.len,
            Self::Float32(c) => c.nulls.len,
            Self::Float64(c) => c.nulls.len,
            Self::Decimal(c) => c.nulls.len,
            Self::Bytes(c) => c.nulls.len,
            Self::Fixed(c) => c.nulls.len,
            Self::Struct(c) => c.nulls.len,
            Self::List(c) | Self::Map(c) => c.nulls.len,
        }
    }

    /// True where there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `rows` more values, where their size is known.
    pub fn reserve(&mut self, rows: usize) {
        match self {
            Self::Boolean(c) => c.values.reserve(rows),
            Self::Int32(c) => c.values.reserve(rows),
            Self::Int64(c) => c.values.reserve(rows),
            Self::Float32(c) => c.values.reserve(rows),
            Self::Float64(c) => c.values.reserve(rows),
            Self::Decimal(c) => c.values.reserve(rows),
            Self::Bytes(c) => c.ends.reserve(rows),
            Self::Fixed(c) => c.data.reserve(rows * c.size),
            Self::Struct(c) => c.children.iter_mut().for_each(|child| child.reserve(rows)),
            Self::List(c) | Self::Map(c) => c.ends.reserve(rows),
        }
    }

    /// Appends a null.
    pub fn push_null(&mut self) {
        match self {
            Self::Boolean(c) => c.push_null(),
            Self::Int32(c) => c.push_null(),
            Self::Int64(c) => c.push_null(),
            Self::Float32(c) => c.push_null(),
            Self::Float64(c) => c.push_null(),
            Self::Decimal(c) => c.push_null(),
            Self::Bytes(c) => c.close(false),
            Self::Fixed(c) => {
                c.data.resize(c.data.len() + c.size, 0);
                c.nulls.push(false);
            }
            Self::Struct(c) => {
                c.children.iter_mut().for_each(Self::push_null);
                c.nulls.push(false);
            }
            Self::List(c) | Self::Map(c) => {
                c.ends.push(c.ends[c.ends.len() - 1]);
                c.nulls.push(false);
            }
        }
    }

    /// Forgets all slots from `len` on, also half-appended ones of nested columns.
    pub fn truncate(&mut self, len: usize) {
        match self {
            Self::Boolean(c) => c.truncate(len),
            Self::Int32(c) => c.truncate(len),
            Self::Int64(c) => c.truncate(len),
            Self::Float32(c) => c.truncate(len),
            Self::Float64(c) => c.truncate(len),
            Self::Decimal(c) => c.truncate(len),
            Self::Bytes(c) => c.truncate(len),
            Self::Fixed(c) => {
                c.data.truncate(len * c.size);
                c.nulls.truncate(len);
            }
            Self::Struct(c) => {
                c.children.iter_mut().for_each(|child| child.truncate(len));
                c.nulls.truncate(len);
            }
            Self::List(c) | Self::Map(c) => {
                c.ends.truncate(len + 1);
                c.child.truncate(usize::try_from(c.ends[len]).unwrap_or(0));
                c.nulls.truncate(len);
            }
        }
    }

    /// True where two slots from `start` on hold the same value. For the types of a map's keys; false of others.
    pub fn repeats(&self, start: usize) -> bool {
        match self {
            Self::Boolean(c) => repeats(c.values[start..].iter()),
            Self::Int32(c) => repeats(c.values[start..].iter()),
            Self::Int64(c) => repeats(c.values[start..].iter()),
            Self::Decimal(c) => repeats(c.values[start..].iter()),
            Self::Bytes(c) => {
                let end = |end: i32| usize::try_from(end).unwrap_or(0);
                repeats(c.ends[start..].windows(2).map(|ends| &c.data[end(ends[0])..end(ends[1])]))
            }
            _ => false,
        }
    }

    /// The Arrow array of type `data_type`, which is the one that the column's type maps to.
    ///
    /// # Errors
    /// `Bug` where column and type do not fit.
    pub fn finish(self, data_type: &DataType) -> Result<ArrayRef> {
        let misfit = |e: arrow::error::ArrowError| Error::bug(format!("finish column of `{data_type}`")).with_source(e);
        Ok(match self {
            Self::Boolean(c) => Arc::new(BooleanArray::new(BooleanBuffer::from(c.values), c.nulls.finish())),
            Self::Int32(c) if *data_type == DataType::Date32 => primitive::<Date32Type>(c, data_type),
            Self::Int32(c) => primitive::<Int32Type>(c, data_type),
            Self::Int64(c) => match data_type {
                DataType::Time64(TimeUnit::Microsecond) => primitive::<Time64MicrosecondType>(c, data_type),
                DataType::Timestamp(TimeUnit::Microsecond, _) => primitive::<TimestampMicrosecondType>(c, data_type),
                DataType::Timestamp(..) => primitive::<TimestampNanosecondType>(c, data_type),
                _ => primitive::<Int64Type>(c, data_type),
            },
            Self::Float32(c) => primitive::<Float32Type>(c, data_type),
            Self::Float64(c) => primitive::<Float64Type>(c, data_type),
            Self::Decimal(c) => Arc::new(
                Decimal128Array::new(ScalarBuffer::from(c.values), c.nulls.finish()).with_data_type(data_type.clone()),
            ),
            // Text may be larger than the bytes that it is made of, so that no caller can rule this out.
            Self::Bytes(c) if i32::try_from(c.data.len()).is_err() => {
                return Err(Error::bug("the texts of one column of a batch have more than 2 GiB"));
            }
            Self::Bytes(c) if *data_type == DataType::Utf8 => Arc::new(
                StringArray::try_new(Bytes::offsets(c.ends), Buffer::from_vec(c.data), c.nulls.finish())
                    .map_err(misfit)?,
            ),
            Self::Bytes(c) => Arc::new(
                BinaryArray::try_new(Bytes::offsets(c.ends), Buffer::from_vec(c.data), c.nulls.finish())
                    .map_err(misfit)?,
            ),
            Self::Fixed(c) => {
                let size = i32::try_from(c.size).unwrap_or(i32::MAX);
                let data = Buffer::from_vec(c.data);
                Arc::new(FixedSizeBinaryArray::try_new(size, data, c.nulls.finish()).map_err(misfit)?)
            }
            Self::Struct(c) => finish_struct(c, data_type)?,
            Self::List(c) => {
                let DataType::List(element) = data_type else { return Err(unexpected(data_type)) };
                let child = c.child.finish(element.data_type())?;
                let made = ListArray::try_new(Arc::clone(element), Bytes::offsets(c.ends), child, c.nulls.finish());
                Arc::new(made.map_err(misfit)?)
            }
            Self::Map(c) => {
                let DataType::Map(entry, _) = data_type else { return Err(unexpected(data_type)) };
                let child = c.child.finish(entry.data_type())?;
                let entries = child.as_any().downcast_ref::<StructArray>().ok_or_else(|| unexpected(data_type))?;
                let offsets = Bytes::offsets(c.ends);
                let made = MapArray::try_new(Arc::clone(entry), offsets, entries.clone(), c.nulls.finish(), false);
                Arc::new(made.map_err(misfit)?)
            }
        })
    }
}

fn repeats<T: Eq + Hash>(mut values: impl ExactSizeIterator<Item = T> + Clone) -> bool {
    match values.len() {
        0 | 1 => false,
        // So few are compared sooner than hashed.
        2..=8 => {
            (1..values.len()).any(|at| values.clone().nth(at).is_some_and(|v| values.clone().take(at).any(|w| w == v)))
        }
        count => {
            let mut known = HashSet::with_capacity_and_hasher(count, ahash::RandomState::new());
            !values.all(|value| known.insert(value))
        }
    }
}

fn list(child: Column) -> List {
    List { ends: vec![0], child: Box::new(child), nulls: Nulls::default() }
}

fn primitive<T: ArrowPrimitiveType>(column: Values<T::Native>, data_type: &DataType) -> ArrayRef {
    let array = PrimitiveArray::<T>::new(ScalarBuffer::from(column.values), column.nulls.finish());
    Arc::new(array.with_data_type(data_type.clone()))
}

fn finish_struct(column: Struct, data_type: &DataType) -> Result<ArrayRef> {
    let DataType::Struct(fields) = data_type else { return Err(unexpected(data_type)) };
    let len = column.nulls.len;
    let children = fields
        .iter()
        .zip(column.children)
        .map(|(field, child)| child.finish(field.data_type()))
        .collect::<Result<Vec<_>>>()?;
    let array = StructArray::try_new_with_length(fields.clone(), children, column.nulls.finish(), len)
        .map_err(|e| Error::bug(format!("finish column of `{data_type}`")).with_source(e))?;
    Ok(Arc::new(array))
}

fn unexpected(data_type: &DataType) -> Error {
    Error::bug(format!("finish column: `{data_type}` is not the column's type"))
}

/// A column of nulls for a field that the source lacks.
pub fn absent(field: &ArrowField, rows: usize) -> ArrayRef {
    new_null_array(field.data_type(), rows)
}

#[cfg(test)]
mod tests;
