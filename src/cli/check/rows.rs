//! Which columns and rows of its records a table gets: names that no field has, and a filter that cannot be right.

use super::Check;
use super::formats::Chosen;
use super::table::{names, wanted};
use crate::decode::evolution::evolved;
use crate::pipeline::driver::TableSpec;
use crate::pipeline::driver::takeover::layout_for;
use crate::ports::TableState;

/// The checks of `columns` and `where`, where a table has them. A running table decides the same.
pub(super) fn checks(spec: &TableSpec, key: &Chosen, value: &Chosen, state: Option<&TableState>) -> Vec<Check> {
    let is_open = key.is_open() || value.is_open();
    columns(spec, key, value).filter(|_| !is_open).into_iter().chain(filter(spec, key, value, state, is_open)).collect()
}

fn columns(spec: &TableSpec, key: &Chosen, value: &Chosen) -> Option<Check> {
    let layout = &spec.layout;
    let fields = layout.fields(key.columns(layout).ok()?, value.columns(layout).ok()?, false);
    let unknown: Vec<String> = layout.projection.unknown(&fields).iter().map(|name| format!("`{name}`")).collect();
    let what = format!("columns of table `{}`", spec.settings.table);
    let found = format!("no field is called {}; a later schema may bring it", unknown.join(", "));
    let fields: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    let remedy = format!("name one of its fields: {}", fields.join(", "));
    (!unknown.is_empty()).then(|| Check::warning(what, found, remedy))
}

fn filter(spec: &TableSpec, key: &Chosen, value: &Chosen, state: Option<&TableState>, is_open: bool) -> Option<Check> {
    let filter = spec.filter.as_ref()?;
    let what = format!("filter of table `{}`", spec.settings.table);
    let layout = state.map_or_else(|| spec.layout.clone(), |state| layout_for(spec, state));
    // What is wrong with the columns is said of the table.
    let now = state.map(|state| state.schema.as_ref().clone()).unwrap_or_default();
    let wanted = wanted(&layout, &now, key, value).ok()?;
    let table = match state {
        Some(_) => evolved(&now, &wanted, &layout).ok()?.unwrap_or(now),
        None => wanted,
    };
    let remedy = format!("name columns that it has: {}", names(&table));
    let planned = match filter.condition.plan(&table) {
        Ok(planned) => planned,
        Err(error) => return Some(Check::failed(what, error.chain(), remedy)),
    };
    let missing: Vec<String> = planned.missing().iter().map(|name| format!("`{name}`")).collect();
    let missing = missing.join(", ");
    Some(match (missing.is_empty(), is_open) {
        (true, _) => Check::ok(what, filter.text.as_str()),
        (false, false) => Check::failed(what, format!("neither table nor schema has {missing}"), remedy),
        (false, true) => {
            let found = format!("{missing} is not there yet, and null in every record that lacks it");
            Check::warning(what, found, "write `COALESCE(…, false)` or `IS TRUE` where such records are to be left out")
        }
    })
}
