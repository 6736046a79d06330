//! What has no column, as JSON beside the row: one object per record, nested as the record is.

use super::cursor::Stop;
use crate::decode::columns::{Bytes, Column, Values};

/// An object of the record that is being read, and those around it.
#[derive(Debug)]
pub(super) struct Frame<'f> {
    parent: Option<&'f Frame<'f>>,
    /// Its name as the record writes it, quotes included.
    key: &'f [u8],
    depth: usize,
}

impl<'f> Frame<'f> {
    /// The record itself.
    pub(super) fn record() -> Self {
        Self { parent: None, key: b"", depth: 1 }
    }

    /// The member `key` of `self`.
    pub(super) fn member(&'f self, key: &'f [u8]) -> Self {
        Self { parent: Some(self), key, depth: self.depth + 1 }
    }
}

/// A state of the text to go back to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    len: usize,
    open: usize,
    first: bool,
}

/// The column `_rescued` while a record is read. Its text grows straight in the column.
#[derive(Debug)]
pub(super) struct Rescue {
    column: Bytes,
    /// Objects whose brace is open.
    open: usize,
    /// True behind an opening brace: no comma is due.
    first: bool,
}

impl Rescue {
    /// Takes the column out of its place, where [`Rescue::put_back`] brings it back.
    pub(super) fn take(place: &mut Column) -> Result<Self, Stop> {
        match std::mem::replace(place, Column::Boolean(Values::default())) {
            Column::Bytes(column) => Ok(Self { column, open: 0, first: true }),
            other => {
                *place = other;
                Err(Stop::Misfit)
            }
        }
    }

    /// Ends the record's slot, null where nothing was rescued.
    pub(super) fn put_back(mut self, place: &mut Column) {
        while self.open > 0 {
            self.close();
        }
        let empty = self.is_empty();
        if !empty {
            self.column.end();
        }
        *place = Column::Bytes(self.column);
        if empty {
            place.push_null();
        }
    }

    #[inline]
    pub(super) fn mark(&self) -> Mark {
        Mark { len: self.column.pending(), open: self.open, first: self.first }
    }

    /// Forgets what was written since `mark`.
    pub(super) fn cut(&mut self, mark: Mark) {
        self.column.cut(mark.len);
        (self.open, self.first) = (mark.open, mark.first);
    }

    /// True where nothing has been written for this record.
    pub(super) fn is_empty(&self) -> bool {
        self.column.pending() == 0
    }

    /// Writes a member of `frame`: its name with quotes, and its value by `write`.
    pub(super) fn put(
        &mut self,
        frame: &Frame<'_>,
        key: &[u8],
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.enter(frame);
        self.comma();
        self.column.append(key);
        self.column.append(b":");
        self.column.append_by(write)
    }

    /// Writes a whole record in place of its members.
    pub(super) fn put_record(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Stop>) -> Result<(), Stop> {
        self.column.append_by(write)
    }

    /// Nothing more of `frame` will come.
    #[inline]
    pub(super) fn leave(&mut self, frame: &Frame<'_>) {
        if self.open == frame.depth {
            self.close();
        }
    }

    fn enter(&mut self, frame: &Frame<'_>) {
        if self.open >= frame.depth {
            return;
        }
        if let Some(parent) = frame.parent {
            self.enter(parent);
            self.comma();
            self.column.append(frame.key);
            self.column.append(b":");
        }
        self.column.append(b"{");
        (self.open, self.first) = (frame.depth, true);
    }

    fn comma(&mut self) {
        if !self.first {
            self.column.append(b",");
        }
        self.first = false;
    }

    fn close(&mut self) {
        self.column.append(b"}");
        (self.open, self.first) = (self.open - 1, false);
    }
}
