//! The house rules as tests: who imports whom, how long files and functions are, what comments may not be. They read
//! the sources as text, as rustfmt leaves them. What clippy can hold stands in `clippy.toml` and `Cargo.toml`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::decoded::Reason;

/// Per part of the tree the modules that its product code may import. The longest part that fits counts; `*` is
/// everything. A module may always import itself.
const IMPORTS: [(&str, &str); 26] = [
    ("error", ""),
    ("invariant", ""),
    ("model", "error invariant"),
    ("ports", "model error"),
    // Of `ports` the plain values only: see `the_brain_names_no_port`.
    ("decode", "model error invariant ports"),
    ("pipeline", "model error invariant rule ports"),
    ("pipeline/driver", "ports decode model error invariant runtime seam telemetry"),
    ("runtime", "error"),
    ("seam", "ports model error runtime"),
    ("route", "ports decode model error runtime"),
    ("telemetry", "error model invariant runtime"),
    ("config", "ports model error"),
    ("kafka", "ports model error invariant runtime telemetry"),
    ("registry", "ports model error invariant runtime telemetry"),
    ("lake", "ports model error invariant rule runtime telemetry"),
    ("query", "seam ports model error invariant runtime telemetry"),
    ("vector", "seam ports model error invariant runtime telemetry"),
    ("http", "ports model error runtime telemetry"),
    ("rest_catalog", "ports model error"),
    // Of `http` the principal and its scopes.
    ("mcp", "ports model error runtime http"),
    ("demo", "error model runtime"),
    ("app", "*"),
    ("cli", "app config decode demo http kafka lake mcp pipeline ports query model error runtime telemetry"),
    ("rule", "error"),
    ("testing", "*"),
    // The binary and the crate's root, and this file.
    ("", "*"),
];

/// Crates that belong to some parts of the tree only. `tokio` among them: nothing pure may wait.
const CRATES: [(&str, &str); 27] = [
    ("arrow", "model ports decode lake seam query vector http mcp app cli"),
    ("axum", "http rest_catalog mcp demo"),
    ("clap", "cli"),
    ("datafusion", "query"),
    ("hyper", "http"),
    ("hyper_util", "http"),
    ("iceberg", "lake"),
    ("indicatif", "cli"),
    ("lance", "vector"),
    ("lance_datafusion", "vector"),
    ("lance_index", "vector"),
    ("lance_linalg", "vector"),
    ("model2vec_rs", "vector"),
    ("object_store", "lake query"),
    ("parquet", "lake query"),
    ("prometheus", "telemetry http"),
    ("prost_reflect", "decode"),
    ("protox_parse", "decode"),
    ("rayon", "runtime lake"),
    ("rdkafka", "kafka demo"),
    ("reqwest", "registry cli"),
    ("rmcp", "mcp"),
    ("schemars", "config"),
    ("sqlx", "lake"),
    ("tokio", "ports pipeline/driver route runtime seam query vector kafka registry lake http demo app cli"),
    ("typetag", "lake"),
    ("unicode_segmentation", "vector"),
];

/// Words that name no place: what would go there belongs to a noun of the domain.
const BUCKETS: [&str; 9] = ["util", "utils", "common", "helper", "helpers", "manager", "managers", "base", "misc"];

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;

/// A source file, by its path below `src/`.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        collect(&root, &mut files);
        files.sort();
        let read = |file: &PathBuf| Self {
            path: file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/"),
            text: fs::read_to_string(file).unwrap(),
        };
        files.iter().map(read).collect()
    }

    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// Numbered lines of code that is built into the product: no comments, no test modules.
    fn product(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_test = self.path.ends_with("tests.rs") || self.path.contains("/tests/");
        let is_test = is_test || self.path == "tidy.rs" || self.path.starts_with("testing");
        let end = self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len());
        let lines = self.text[..if is_test { 0 } else { end }].lines().enumerate();
        lines.map(|(index, line)| (index + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_in(&self, part: &str) -> bool {
        let rest = self.path.strip_prefix(part);
        rest.is_some_and(|rest| part.is_empty() || rest.starts_with('/') || rest == ".rs")
    }

    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Fails with all that `rule` finds in all files.
fn check(rule: impl Fn(&Source) -> Vec<String>) {
    let found: Vec<String> = Source::all().iter().flat_map(rule).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn says(source: &Source, line: usize, what: &str) -> String {
    format!("src/{}:{line}: {what}", source.path)
}

/// Identifiers that follow `prefix` in `line`, where no identifier ends in front of it.
fn after<'a>(line: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(prefix).filter(|(at, _)| !line[..*at].ends_with(is_word)).map(move |(at, _)| {
        let rest = &line[at + prefix.len()..];
        &rest[..rest.find(|c| !is_word(c)).unwrap_or(rest.len())]
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn imports(source: &Source) -> Vec<String> {
    let fits = IMPORTS.iter().filter(|(part, _)| source.is_in(part)).max_by_key(|(part, _)| part.len());
    let (part, allowed) = fits.unwrap();
    let allowed: BTreeSet<&str> = allowed.split_whitespace().collect();
    let mut found = Vec::new();
    for (number, line) in source.product() {
        for name in after(line, "crate::") {
            // The macro `check!` is `invariant`'s.
            let name = if name == "check" { "invariant" } else { name };
            if !allowed.contains("*") && name != source.module() && !allowed.contains(name) {
                found.push(says(source, number, &format!("`{part}` may not import `{name}`")));
            }
        }
    }
    found
}

#[test]
fn modules_import_in_one_direction() {
    check(imports);
    let wrong = Source::new("model/ids.rs", "use crate::error::Error;\n// crate::lake\nuse crate::lake::Lake;\n");
    assert_eq!(imports(&wrong), ["src/model/ids.rs:3: `model` may not import `lake`"]);
    let nested = Source::new("pipeline/machine.rs", "    let x = crate::runtime::clock::Clock::system();\n");
    assert_eq!(imports(&nested).len(), 1, "and the driver, one folder below, may");
}

fn crates(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    for (name, parts) in CRATES {
        if parts.split_whitespace().any(|part| source.is_in(part)) {
            continue;
        }
        let path = format!("{name}::");
        let uses = source.product().filter(|(_, line)| {
            line.match_indices(&path).any(|(at, _)| !line[..at].ends_with(|c| is_word(c) || c == ':'))
        });
        found.extend(uses.map(|(number, _)| says(source, number, &format!("`{name}` belongs to {parts}"))));
    }
    found
}

#[test]
fn heavy_crates_stay_where_they_belong() {
    check(crates);
    let wrong = Source::new("decode/plan.rs", "use crate::arrow::X;\nlet x = tokio::sync::Mutex::new(());\n");
    assert_eq!(crates(&wrong).len(), 1);
}

/// Decoding and deciding know the values that ports exchange, never the ports themselves.
fn ports(source: &Source) -> Vec<String> {
    if !(source.is_in("pipeline") || source.is_in("decode")) || source.is_in("pipeline/driver") {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut importing = false;
    for (number, line) in source.product() {
        importing |= line.contains("ports::");
        let traits: &[&str] = match importing {
            true => &[
                "Source",
                "SourceEvent",
                "Registry",
                "Lake",
                "FileWriter",
                "CatalogView",
                "RowFilter",
                "PlannedFilter",
            ],
            false => &[],
        };
        let words =
            line.split(|c| !is_word(c)).filter(|word| traits.contains(word) || ["async", "await"].contains(word));
        found.extend(words.map(|word| says(source, number, &format!("`{word}` in pure code"))));
        importing &= !line.ends_with(';');
    }
    found
}

#[test]
fn the_brain_names_no_port() {
    check(ports);
    let wrong = Source::new("pipeline/machine.rs", "use crate::ports::{\n    Lake, Start,\n};\nOn::Registry;\n");
    assert_eq!(ports(&wrong).len(), 1);
}

fn shape(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    if !source.text.starts_with("//! ") {
        found.push(says(source, 1, "the first line says what lives here: `//! …`"));
    }
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(says(source, lines, &format!("{lines} lines, {FILE_LINES_MAX} are allowed")));
    }
    let names = source.path.trim_end_matches(".rs").split('/');
    found.extend(
        names.filter(|name| BUCKETS.contains(name)).map(|name| says(source, 1, &format!("`{name}` is a bucket"))),
    );
    found
}

#[test]
fn files_are_short_and_say_what_they_are() {
    check(shape);
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    assert_eq!(shape(&Source::new("model/utils.rs", &long)).len(), 3);
}

/// A function goes from its `fn` to the first brace in the same column, as rustfmt sets it.
fn functions(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let signature = code.split('(').next().unwrap_or_default();
        if code.starts_with("//") || !signature.split_whitespace().any(|word| word == "fn") {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let closes = |line: &&str| {
            let rest = line.strip_prefix(indent);
            rest.is_some_and(|rest| rest.starts_with('}') || (rest.ends_with(';') && !rest.starts_with(' ')))
        };
        if line.ends_with(['}', ';']) {
            continue;
        }
        let length = lines[start..].iter().skip(1).position(closes).map_or(usize::MAX, |end| end + 2);
        if length > FUNCTION_LINES_MAX {
            found.push(says(source, start + 1, &format!("{length} lines, {FUNCTION_LINES_MAX} are allowed: `{code}`")));
        }
    }
    found
}

#[test]
fn functions_are_short() {
    check(functions);
    let long = format!("fn one() {{\n{}}}\n\nfn two(\n    a: u8,\n) -> u8;\n", "    x();\n".repeat(FUNCTION_LINES_MAX));
    assert_eq!(functions(&Source::new("model/ids.rs", &long)).len(), 1);
}

fn comments(source: &Source) -> Vec<String> {
    // In pieces, so that this file is held to its own rule.
    let marks = [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("XX", "X")];
    let mut found = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
            found.push(says(source, index + 1, &format!("`{mark}`: do it, or do not")));
        }
        let text = line.trim_start().strip_prefix("// ").unwrap_or_default();
        if text.ends_with([';', '{', '}']) && text.contains(['(', '=', '{', '}']) {
            found.push(says(source, index + 1, "code in a comment"));
        }
    }
    found
}

#[test]
fn comments_hold_no_code_and_no_promises() {
    check(comments);
    let wrong = format!("// let x = 1;\n// {}: later\n// Words; that go on;\n", concat!("TO", "DO"));
    assert_eq!(comments(&Source::new("model/ids.rs", &wrong)).len(), 2);
}

/// Offsets, timestamps and lengths of the wire are signed: a cast to a signed type is where one is cut off silently.
fn casts(source: &Source) -> Vec<String> {
    if !(source.is_in("model") || source.is_in("pipeline")) {
        return Vec::new();
    }
    let cast = |line: &str| after(line, "as ").any(|kind| ["i64", "i32", "i16"].contains(&kind));
    let lines = source.product().filter(|(_, line)| cast(line));
    lines.map(|(number, _)| says(source, number, "convert by `try_from`")).collect()
}

#[test]
fn positions_are_never_cast() {
    check(casts);
    assert_eq!(casts(&Source::new("model/offsets.rs", "x as i64\nhas i64\ny as u64\n")).len(), 1);
}

#[test]
fn every_reason_for_a_dead_letter_is_documented() {
    let page = include_str!("../docs/dead-letters.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.split('|').map(str::trim).collect())
        .collect();
    let documented: Vec<&str> = rows.iter().map(|row| row[1].trim_matches('`')).collect();
    assert_eq!(documented, Reason::ALL.map(Reason::as_str));
    // What it means, what to do, and whether a replay can help.
    for row in &rows {
        let says = row.len() == 6 && row[2..4].iter().all(|cell| !cell.is_empty());
        assert!(says && ["Yes", "No", "Only"].iter().any(|word| row[4].starts_with(word)), "{row:?}");
    }
}

#[test]
fn every_module_is_in_the_code_map() {
    let page = include_str!("../ARCHITECTURE.md");
    let modules: BTreeSet<String> = Source::all().iter().map(|source| source.module().to_owned()).collect();
    let missing: Vec<&String> = modules.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in ARCHITECTURE.md: {missing:?}");
}
