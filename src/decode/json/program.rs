//! A schema, or a table's columns alone, compiled into a program that reads a record's JSON straight into columns.
//!
//! One program per schema appends to the same columns, so records of several schema versions may alternate at no
//! cost. A program that fails leaves half a row behind; its caller truncates the columns.
//!
//! A value that does not fit its column, and a member that has none, go into the rescue column where the table has
//! one: as a JSON object that holds just these, nested as in the record. The unit is a member of an object. Of a list,
//! map or union one part that does not fit makes the whole member misfit: it is rescued and its column is null. An
//! object in there with members that no column takes does fit: the column has what it can hold, and the whole member
//! is rescued as well. Laying the rescued object over the row gives the record back. Without a rescue column unknown
//! members are passed over, and a value that does not fit makes the record a dead letter; so does, with and without
//! one, a required top-level column that gets no value.

use super::compile::{self, Compiler};
use super::cursor::{Cursor, Stop};
use super::read::{Plan, Run, Slot};
use super::rescue::{Frame, Rescue};
use super::schema::{Kind, Schema};
use super::trim::trim;
use super::union::Union;
use crate::decode::Failure;
use crate::decode::columns::Column;
use crate::decode::mapping::{MappingOptions, mismatch};
use crate::error::{Error, Result};
use crate::model::projection::Projection;
use crate::model::schema::{Field, Type};

/// A compiled schema.
#[derive(Debug)]
pub struct Program {
    top: Top,
    rescued: Option<usize>,
}

#[derive(Debug)]
enum Top {
    Object(Plan),
    /// The branches, and what is to be had of their fields.
    Union(Union, Projection),
    /// The value, whatever it is, in one column; the key under which it is rescued.
    Single(Slot, Vec<u8>),
}

impl Program {
    /// Compiles the schema of an object, or of a union whose branches are columns, against the columns of `table`, of
    /// which it may fill those that `open` lists. `rescued` is the column for what fits no other.
    ///
    /// # Errors
    /// `InvalidRecord` where a member has no column type or one that the table's column cannot take; `Bug` where the
    /// schema is of one column.
    pub fn compile(
        schema: &Schema,
        table: &[Field],
        open: &[usize],
        options: MappingOptions,
        projection: &Projection,
        rescued: Option<usize>,
    ) -> Result<Self> {
        let (open, compiler) = (without(open, rescued), Compiler { options, projection });
        let top = match &schema.kind {
            Kind::Object(object) => Top::Object(compiler.plan(object, table, &open, "")?),
            Kind::Union(branches) => {
                let union = compiler.branches(branches, table, &open, "")?;
                let inside = projection.inside_any(union.names());
                Top::Union(union, inside)
            }
            _ => return Err(Error::bug("compile a JSON Schema that is of no object as one of an object")),
        };
        Self::new(top, table, rescued)
    }

    /// Compiles a schema whose value goes into the one column `index`. What does not fit is rescued under its name.
    ///
    /// # Errors
    /// As [`Program::compile`].
    pub fn compile_single(
        schema: &Schema,
        table: &[Field],
        index: usize,
        options: MappingOptions,
        projection: &Projection,
        rescued: Option<usize>,
    ) -> Result<Self> {
        let column = &table[index];
        let slot = Compiler { options, projection }.single(schema, index, column)?;
        let key = serde_json::Value::from(column.name.as_str()).to_string().into_bytes();
        Self::new(Top::Single(slot, key), table, rescued)
    }

    /// Compiles the columns of `table` that `open` lists, for records without schema. Members go into the columns of
    /// their names: numbers and booleans into theirs, texts into string columns, or, in the spelling of ISO 8601 and
    /// RFC 4122 or in base64, into those of times, uuids and bytes; decimals from numbers and texts. Anything goes, as
    /// JSON text, into a string column whose comment says that it holds JSON text. A record that is no object is a
    /// dead letter.
    ///
    /// # Errors
    /// `InvalidRecord` where the rescue column is no string.
    pub fn schemaless(
        table: &[Field],
        open: &[usize],
        projection: &Projection,
        rescued: Option<usize>,
    ) -> Result<Self> {
        let mut plan = compile::plan_of_columns(table, &without(open, rescued), projection);
        plan.absent.clear();
        Self::new(Top::Object(plan), table, rescued)
    }

    fn new(top: Top, table: &[Field], rescued: Option<usize>) -> Result<Self> {
        if let Some(column) = rescued.map(|index| &table[index])
            && (column.kind != Type::String || column.required)
        {
            return Err(mismatch(&column.name, &Type::String, &column.kind));
        }
        Ok(Self { top, rescued })
    }

    /// The columns that it fills.
    pub fn filled(&self) -> impl Iterator<Item = usize> {
        let columns: Vec<usize> = match &self.top {
            Top::Object(plan) => plan.slots().iter().map(|slot| slot.column).collect(),
            Top::Union(union, _) => {
                union.branches.iter().filter_map(|branch| Some(branch.column.as_ref()?.0)).collect()
            }
            Top::Single(slot, _) => vec![slot.column],
        };
        columns.into_iter().chain(self.rescued)
    }

    /// Reads one record that is exactly `bytes` and appends a value to each column that the program fills.
    ///
    /// # Errors
    /// What is wrong with the bytes; some columns then have half a row.
    pub fn run(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), Failure> {
        let mut run = Run { cursor: Cursor::new(bytes)?, rescue: None, unknown: false };
        let Some(place) = self.rescued else { return Ok(self.record(&mut run, columns)?) };
        run.rescue = Some(Rescue::take(&mut columns[place])?);
        let read = self.record(&mut run, columns);
        if let Some(rescue) = run.rescue {
            rescue.put_back(&mut columns[place]);
        }
        Ok(read?)
    }

    fn record(&self, run: &mut Run<'_>, columns: &mut [Column]) -> Result<(), Stop> {
        let record = Frame::record();
        let frame = run.rescue.is_some().then_some(&record);
        match &self.top {
            Top::Object(plan) => plan.run(run, columns, frame)?,
            Top::Union(union, inside) => Self::union(union, inside, run, columns)?,
            Top::Single(slot, key) => {
                let rows = columns[slot.column].len();
                slot.read(key, run, columns, rows, frame)?;
            }
        }
        run.cursor.end()
    }

    /// The branches of a union at the top have no member that they could be rescued as: the whole record is, where it
    /// is an object.
    fn union(union: &Union, inside: &Projection, run: &mut Run<'_>, columns: &mut [Column]) -> Result<(), Stop> {
        let first = run.cursor.peek()?;
        let start = run.cursor.position();
        let filled = || union.branches.iter().filter_map(|branch| Some(branch.column.as_ref()?.0));
        let rows = filled().next().map_or(0, |column| columns[column].len());
        let read = union.run(run, columns);
        let rescue = run.rescue.as_mut().filter(|_| first == b'{');
        match (read, rescue) {
            (Err(stop), Some(rescue)) if stop.is_misfit() => {
                run.cursor.go_back(start);
                rescue.put_record(|out| trim(&mut run.cursor, None, inside, out))?;
                for column in filled() {
                    columns[column].truncate(rows);
                    columns[column].push_null();
                }
                Ok(())
            }
            (Ok(()), Some(rescue)) if run.unknown => {
                run.cursor.go_back(start);
                rescue.put_record(|out| trim(&mut run.cursor, None, inside, out))
            }
            (read, _) => read,
        }
    }
}

fn without(open: &[usize], rescued: Option<usize>) -> Vec<usize> {
    open.iter().copied().filter(|index| Some(*index) != rescued).collect()
}
