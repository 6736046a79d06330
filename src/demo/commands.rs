//! What a user can paste after a demo: other people's engines reading the very same tables. Text only; nothing is run.

use std::path::Path;

use super::generate::TOPICS;
use super::{CATALOG_FILE, CATALOG_NAME, WAREHOUSE_DIR};

/// A command to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it shows.
    pub title: &'static str,
    /// Shell text, complete as it is.
    pub shell: String,
}

/// Packages that the commands need, in the versions that they were tried with. DuckDB's extensions come from the
/// same place as DuckDB, so that no other host has to be reachable.
const PACKAGES: &str = "'pyiceberg[pyarrow,sql-sqlite]==0.12.0' duckdb==1.5.5 duckdb-extensions==1.5.5 \
duckdb-extension-iceberg==1.5.5 duckdb-extension-avro==1.5.5";

/// Commands that read the tables of a demo in `dir`, an absolute path; in the order in which to paste them.
#[must_use]
pub fn commands(dir: &Path) -> Vec<Command> {
    let venv = dir.join("venv").display().to_string();
    let python = quoted(&format!("{venv}/bin/python"));
    let catalog = python_catalog(dir);
    let tables = serde_json::json!(TOPICS.map(|topic| topic.table));
    vec![
        Command {
            title: "Python packages for the commands below, in a folder of their own",
            shell: format!("python3 -m venv {} && {} -m pip install --quiet {PACKAGES}", quoted(&venv), python),
        },
        Command {
            title: "PyIceberg: rows and snapshots of each table",
            shell: format!(
                "{python} - <<'PY'\n{catalog}\
                 for name in {tables}:\n\
                 \x20   table = catalog.load_table(name)\n\
                 \x20   print(name, table.scan().count(), 'rows,', len(table.snapshots()), 'snapshots')\n\
                 PY"
            ),
        },
        Command {
            title: "DuckDB: what was paid, by country of the order",
            shell: format!(
                "{python} - <<'PY'\n\
                 import duckdb, duckdb_extensions\n\
                 {catalog}\
                 for extension in ('avro', 'iceberg'):\n\
                 \x20   duckdb_extensions.import_extension(extension)\n\
                 orders, payments = (catalog.load_table(name).metadata_location for name in ('shop.orders', 'shop.payments'))\n\
                 duckdb.sql('''\n\
                 \x20   SELECT country, currency, count(*) AS payments, sum(amount) AS paid\n\
                 \x20   FROM iceberg_scan(?) AS p JOIN iceberg_scan(?) AS o USING (order_id, currency)\n\
                 \x20   WHERE p.status = 'captured' GROUP BY ALL ORDER BY paid DESC LIMIT 10\n\
                 ''', params=[payments, orders]).show()\n\
                 PY"
            ),
        },
    ]
}

/// Python lines that open the demo's catalog.
fn python_catalog(dir: &Path) -> String {
    // A JSON string is a Python string.
    let text = |text: String| serde_json::json!(text).to_string();
    let uri = text(format!("sqlite:///{}", dir.join(CATALOG_FILE).display()));
    let warehouse = text(format!("file://{}", dir.join(WAREHOUSE_DIR).display()));
    format!(
        "from pyiceberg.catalog.sql import SqlCatalog\n\
         catalog = SqlCatalog('{CATALOG_NAME}', uri={uri}, warehouse={warehouse})\n"
    )
}

/// One word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_takes_each_command_whole() {
        for command in commands(Path::new("/tmp/it's a demo")) {
            let checked = std::process::Command::new("sh").args(["-n", "-c", &command.shell]).output().unwrap();
            assert!(checked.status.success(), "{}: {}", command.title, String::from_utf8_lossy(&checked.stderr));
            assert!(command.shell.contains(r"'/tmp/it'\''s a demo/venv"), "{}", command.shell);
        }
    }
}
