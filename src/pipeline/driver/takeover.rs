//! Tables that another tool made: whether records can be appended to one, and the commit that makes it Frazil's.
//!
//! A take-over is one commit: it adds the columns that the table lacks and states the mapping in its properties. What
//! was there stays as it was: columns, rows, partitioning, sort order, location, other properties. Once the mapping
//! stands there the table is as any other; the ledger comes next, by the commit that begins every table.

use std::collections::BTreeMap;

use super::TableSpec;
use super::resolve::Resolver;
use crate::decode::adoption::{Misfit, adopted};
use crate::decode::layout::Layout;
use crate::decode::mapping::{Added, TableFormat};
use crate::error::{Error, Result};
use crate::model::mapping::PREFIX;
use crate::model::schema::{Field, Marks, TableSchema, Type};
use crate::pipeline::event::On;
use crate::ports::{PartitionField, TableState, Transform};
use crate::runtime::crash;

/// The configured layout as this table needs it. Where its columns are required, which ours are not unless asked for,
/// it counts whether records always have them.
#[must_use]
pub fn layout_for(spec: &TableSpec, state: &TableState) -> Layout {
    let mut layout = spec.layout.clone();
    let by_value = |field: &&PartitionField| matches!(field.transform, Transform::Identity | Transform::Truncate(_));
    layout.mapping.format = TableFormat::of(state.shape.format_version);
    layout.partitioned = state.shape.partition_by.iter().filter(by_value).map(|field| field.column.clone()).collect();
    // Of a table that another tool made only the table says these.
    layout.pinned.extend(state.shape.partition_by.iter().map(|field| field.column.clone()));
    let words = state.shape.sort_by.iter().flat_map(|sort| sort.split([' ', '(', ')', ',']));
    layout.pinned.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    let mut data = state.schema.fields.iter().filter(|field| !layout.is_metadata(&field.name));
    if !layout.mapping.keep_required && data.any(is_required) {
        layout.mapping.keep_required = true;
        layout.mapping.added = Added::Optional;
    }
    layout
}

/// True for a field that is required, or has one inside it, but for the keys of maps, which always are.
fn is_required(field: &Field) -> bool {
    let within = match &field.kind {
        Type::Struct(fields) => fields.iter().any(is_required),
        Type::List(element) => is_required(element),
        Type::Map(_, value) => is_required(value),
        _ => false,
    };
    field.required || within
}

/// The columns of a table that another tool made, with those that it lacks for `spec`'s records. `columns` are those of
/// the records by a layout; `is_open` says that there may be more, known with the first record.
///
/// # Errors
/// All that does not fit.
pub fn fit(
    spec: &TableSpec,
    state: &TableState,
    is_open: bool,
    columns: impl Fn(&Layout) -> Result<TableSchema>,
) -> Result<TableSchema, Vec<Misfit>> {
    let mut misfits = of_table(spec, state);
    let mut layout = layout_for(spec, state);
    // Whoever else uses the table counts on its names.
    layout.pinned.extend(state.schema.fields.iter().map(|field| field.name.clone()));
    if !spec.layout.mapping.keep_required {
        (layout.mapping.keep_required, layout.mapping.added) = (true, Added::Optional);
    }
    let wanted = columns(&layout).map_err(|error| {
        let remedy = "rename or leave out one of them by `columns`".to_owned();
        vec![Misfit { what: "columns".to_owned(), found: error.chain(), remedy }]
    });
    let fits = wanted.and_then(|wanted| adopted(&state.schema, &without_defaults(wanted), is_open, &layout));
    let schema = match fits {
        Ok(schema) => schema,
        Err(more) => {
            misfits.extend(more);
            return Err(misfits);
        }
    };
    let is_new = |field: &&Field| state.schema.field(&field.name).is_none();
    for field in schema.fields.iter().filter(is_new).filter(|field| state.shape.reserved.contains(&field.name)) {
        misfits.push(Misfit {
            what: format!("column `{}`", field.name),
            found: "is to be added, and a partition field has its name".to_owned(),
            remedy: "rename the partition field with the engine that keeps the table".to_owned(),
        });
    }
    if misfits.is_empty() { Ok(schema) } else { Err(misfits) }
}

/// The columns without defaults: rows that are there already are no older records of these.
#[must_use]
pub(super) fn without_defaults(mut schema: TableSchema) -> TableSchema {
    schema.fields.iter_mut().for_each(|field| field.marks = Marks::default());
    schema
}

/// What does not fit of the table as a whole.
fn of_table(spec: &TableSpec, state: &TableState) -> Vec<Misfit> {
    let shape = &state.shape;
    let mut misfits = Vec::new();
    let mut misfit = |what: &str, found: String, remedy: &str| {
        misfits.push(Misfit { what: what.to_owned(), found, remedy: remedy.to_owned() });
    };
    if let Some(reason) = &shape.unwritable {
        let remedy = "change that with the engine that keeps the table, or write to another table";
        misfit("table", format!("cannot be written: {reason}"), remedy);
    }
    let written = |all: &[String]| if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
    let fields = |all: &[PartitionField]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (asked, is) = (fields(&spec.partition_by), fields(&shape.partition_by));
    for (setting, asked, is) in [("partition_by", &asked, &is), ("sort_by", &spec.sort_by, &shape.sort_by)] {
        if !asked.is_empty() && asked != is {
            let found = format!("is {} in the configuration, {} in the table", written(asked), written(is));
            misfit(&format!("`{setting}`"), found, "leave it out: the table keeps its own");
        }
    }
    let place = |location: &str| location.trim_start_matches("file://").trim_end_matches('/').to_owned();
    if let Some(asked) = spec.location.as_ref().filter(|asked| place(asked) != place(&shape.location)) {
        let found = format!("is `{asked}` in the configuration, `{}` in the table", shape.location);
        misfit("`location`", found, "leave it out: the table keeps its own");
    }
    misfits
}

/// Makes a table Frazil's that another tool made, or says why not.
pub(super) async fn take_over(resolver: &Resolver, state: TableState) -> Result<TableState, (On, Error)> {
    let (spec, table) = (&resolver.spec, &state.table);
    if !spec.adopts {
        return Err((
            On::Catalog,
            Error::corrupt(format!(
                "table `{table}` is there already, and frazil did not make it; to append to it set `existing: adopt` \
                 for the table (`frazil check` then shows what changes), or write to another table"
            )),
        ));
    }
    let known = resolver.known().await.map_err(|error| (On::Registry, error))?;
    let is_open = !known.is_complete(&spec.layout);
    let schema = fit(spec, &state, is_open, |layout| known.columns(layout)).map_err(|misfits| {
        let all: Vec<String> =
            misfits.iter().map(|misfit| format!("{} {}: {}", misfit.what, misfit.found, misfit.remedy)).collect();
        let text =
            format!("table `{table}` was made by another tool and does not take the records: {}", all.join("; "));
        (On::Catalog, Error::corrupt(text))
    })?;
    let filtered = resolver.check_filter(&schema, &known, &layout_for(spec, &state));
    filtered.map_err(|error| (On::Catalog, error))?;
    let mapping = spec.properties.iter().filter(|(key, _)| key.starts_with(PREFIX));
    let mut properties: BTreeMap<String, String> = mapping.map(|(key, value)| (key.clone(), value.clone())).collect();
    properties.extend(known.decided);
    let evolved = resolver.ports.lake.evolve(&state, &schema, &properties).await;
    let taken = evolved.map_err(|error| (On::Catalog, error))?;
    let added = taken.schema.fields.iter().filter(|field| state.schema.field(&field.name).is_none());
    let added: Vec<&str> = added.map(|field| field.name.as_str()).collect();
    tracing::info!(%table, rows = state.rows, ?added, "took over a table that another tool made");
    crash::point(crash::TABLE_ADOPTED);
    Ok(taken)
}
