//! The settings `columns` and `where` of a table, checked as far as they speak for themselves.

use super::resolve::invalid;
use super::settings::ColumnSettings;
use crate::error::Result;
use crate::model::projection::{Projection, is_within};
use crate::model::schema::RESCUED;

/// `at` is the section's dotted key.
pub(super) fn resolve_columns(at: &str, written: ColumnSettings) -> Result<Projection> {
    let (exclude, rename) = (written.exclude.unwrap_or_default(), written.rename.unwrap_or_default());
    let columns = Projection { include: written.include, exclude, rename };
    for (name, paths) in [("include", columns.include.as_deref().unwrap_or_default()), ("exclude", &columns.exclude)] {
        for (index, path) in paths.iter().enumerate() {
            let key = format!("{at}.{name}[{index}]");
            check_field(&key, path)?;
            if let Some(other) = paths[..index].iter().find(|other| is_within(path, other) || is_within(other, path)) {
                return Err(invalid(
                    &key,
                    &format!("`{path}` and `{other}` are one, or inside each other; remove one"),
                ));
            }
        }
    }
    for (index, path) in columns.include.iter().flatten().enumerate() {
        if let Some(other) = columns.exclude.iter().find(|other| is_within(path, other)) {
            let text = format!("`{path}` is left out by `{other}` under `exclude`; remove one of them");
            return Err(invalid(&format!("{at}.include[{index}]"), &text));
        }
    }
    for (from, to) in &columns.rename {
        check_rename(&format!("{at}.rename.{from}"), from, to, &columns)?;
    }
    Ok(columns)
}

fn check_field(key: &str, path: &str) -> Result<()> {
    if path.split('.').any(str::is_empty) {
        return Err(invalid(key, &format!("`{path}` is no field; write its name, or the path to it, as in `a.b`")));
    }
    if is_within(path, RESCUED) {
        return Err(invalid(
            key,
            &format!("`{RESCUED}` is the column for what fits no other, and no field; remove it"),
        ));
    }
    Ok(())
}

fn check_rename(key: &str, from: &str, to: &str, columns: &Projection) -> Result<()> {
    check_field(key, from)?;
    if from.contains('.') {
        return Err(invalid(key, "it is inside another field, and has no column of its own; remove it"));
    }
    if !columns.takes(from) {
        return Err(invalid(key, &format!("field `{from}` is left out and has no column; remove one of the two")));
    }
    if to.is_empty() || to.contains('.') || to == RESCUED {
        return Err(invalid(key, &format!("`{to}` cannot be a column of its own; write a name without dots")));
    }
    let renamed = |field: &str| columns.rename.keys().find(|other| other.eq_ignore_ascii_case(field));
    let same = |(other, name): (&String, &String)| {
        other != from && (other.eq_ignore_ascii_case(from) || name.eq_ignore_ascii_case(to))
    };
    if columns.rename.iter().any(same) {
        return Err(invalid(
            key,
            &format!("another field of this name, or for column `{to}`, is there too; remove one"),
        ));
    }
    if columns.include.iter().flatten().any(|field| field.eq_ignore_ascii_case(to) && renamed(field).is_none()) {
        return Err(invalid(key, &format!("`{to}` is the column of an included field already; write another name")));
    }
    Ok(())
}

/// The renames, as the table's properties keep them. What is included or excluded says nothing of columns that are
/// there: it may change.
pub(super) fn stored(columns: &Projection) -> String {
    let renames: Vec<String> = columns.rename.iter().map(|(from, to)| format!("{from}: {to}")).collect();
    if renames.is_empty() { "none".to_owned() } else { renames.join(", ") }
}

/// `at` is the setting's dotted key.
pub(super) fn resolve_filter(at: &str, written: Option<String>) -> Result<Option<String>> {
    match written {
        Some(text) if text.trim().is_empty() => {
            Err(invalid(at, "it is empty; write a condition, as in `amount > 0`, or remove it"))
        }
        written => Ok(written),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, TableConfig};
    use crate::error::Result;

    fn table(options: &str) -> Result<TableConfig> {
        let text = format!(
            "kafka: {{bootstrap_servers: b}}\ncatalog: {{uri: 'sqlite://c.db', warehouse: /w}}\n\
             tables: [{{topic: t, {options}}}]"
        );
        Config::from_yaml(&text, &|_| None).map(|mut config| config.tables.remove(0))
    }

    #[test]
    fn every_mistake_names_its_key_and_remedy() {
        for (option, expected) in [
            ("columns: {include: [a, A.b]}", "include[1]`: `A.b` and `a` are one, or inside each other; remove one"),
            ("columns: {exclude: [a, a]}", "exclude[1]`: `a` and `a` are one, or inside each other; remove one"),
            (
                "columns: {exclude: [a..b]}",
                "exclude[0]`: `a..b` is no field; write its name, or the path to it, as in `a.b`",
            ),
            (
                "columns: {exclude: [_rescued]}",
                "exclude[0]`: `_rescued` is the column for what fits no other, and no field; remove it",
            ),
            (
                "columns: {include: [a.b], exclude: [A]}",
                "include[0]`: `a.b` is left out by `A` under `exclude`; remove one of them",
            ),
            (
                "columns: {rename: {a.b: c}}",
                "rename.a.b`: it is inside another field, and has no column of its own; remove it",
            ),
            (
                "columns: {exclude: [a], rename: {a: b}}",
                "rename.a`: field `a` is left out and has no column; remove one of the two",
            ),
            (
                "columns: {include: [b], rename: {a: c}}",
                "rename.a`: field `a` is left out and has no column; remove one of the two",
            ),
            (
                "columns: {rename: {a: b.c}}",
                "rename.a`: `b.c` cannot be a column of its own; write a name without dots",
            ),
            (
                "columns: {rename: {a: x, b: X}}",
                "rename.a`: another field of this name, or for column `x`, is there too; remove one",
            ),
            (
                "columns: {include: [a, b], rename: {a: b}}",
                "rename.a`: `b` is the column of an included field already; write another name",
            ),
            ("where: ' '", "tables[0].where`: it is empty; write a condition, as in `amount > 0`, or remove it"),
        ] {
            let error = table(option).expect_err(option).to_string();
            assert!(error.ends_with(expected), "{option}: {error}");
        }
    }

    #[test]
    fn only_a_rename_is_kept_with_the_table() {
        let kept = |options: &str| table(options).unwrap().mapping()["frazil.mapping.columns.rename"].clone();
        assert_eq!(kept("columns: {include: [a], exclude: [a.b]}, where: a > 1"), "none");
        // Two fields may change names.
        assert_eq!(kept("columns: {include: [a, b], rename: {b: a, a: b}}"), "a: b, b: a");
    }
}
