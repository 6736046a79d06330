//! The audit: every call and every refusal, one JSON object a line, appended only. Each line holds the hash of the line
//! before it, so that a line which was changed, put in or taken out shows. Cutting off the end does not: keep a copy
//! of the last hash elsewhere where that matters.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};
use crate::mcp::cursor::hex;

/// Bytes looked at for the last line; a line is far shorter.
const LAST_LINE_BYTES: u64 = 256 << 10;

/// What is written down of one call.
#[derive(Debug, Clone, Serialize)]
pub(in crate::mcp) struct Line {
    /// When it came, milliseconds since the epoch.
    pub(in crate::mcp) time_ms: i64,
    pub(in crate::mcp) id: String,
    pub(in crate::mcp) principal: String,
    pub(in crate::mcp) client: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::mcp) trace: Option<String>,
    pub(in crate::mcp) tool: String,
    /// Without what may be people's data.
    pub(in crate::mcp) arguments: Value,
    pub(in crate::mcp) digest: String,
    /// `ok`, `cancelled`, or the code of the refusal.
    pub(in crate::mcp) verdict: String,
    pub(in crate::mcp) rows: usize,
    pub(in crate::mcp) bytes: usize,
    pub(in crate::mcp) scanned_bytes: u64,
    pub(in crate::mcp) latency_ms: f64,
}

#[derive(Serialize)]
struct Chained<'a> {
    #[serde(flatten)]
    line: &'a Line,
    prev: &'a str,
}

/// The file. Several processes may append to it: each holds a lock while it does.
pub(in crate::mcp) struct Audit {
    path: PathBuf,
    open: Mutex<Option<Open>>,
}

struct Open {
    file: File,
    /// Its length after our last line, and that line's hash: true while nobody else has appended.
    end: u64,
    hash: String,
}

impl Audit {
    /// The file is made with the first line.
    pub(in crate::mcp) fn new(path: PathBuf) -> Self {
        Self { path, open: Mutex::default() }
    }

    /// Appends a line.
    ///
    /// # Errors
    /// `Unavailable` where the file cannot be written.
    pub(in crate::mcp) fn append(&self, line: &Line) -> Result<()> {
        let failed = |e: std::io::Error| {
            Error::unavailable(format!("write the audit file `{}`", self.path.display())).with_source(e)
        };
        let mut held = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let open = match &mut *held {
            Some(open) => open,
            None => held.insert(open(&self.path).map_err(failed)?),
        };
        open.file.lock().map_err(failed)?;
        let written = open.append(line);
        let unlocked = open.file.unlock();
        if written.is_err() {
            // Whatever state the file is in is looked at again with the next line.
            *held = None;
        }
        written.and(unlocked).map_err(failed)
    }
}

fn open(path: &Path) -> std::io::Result<Open> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
    Ok(Open { file, end: u64::MAX, hash: String::new() })
}

impl Open {
    fn append(&mut self, line: &Line) -> std::io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut text = Vec::new();
        if length != self.end {
            let (last, is_whole) = last_line(&mut self.file, length)?;
            self.hash = hash(&last);
            if !is_whole {
                // Its writer was killed half-way; the line stays as it is, and the chain goes on behind it.
                text.push(b'\n');
            }
        }
        let begin = text.len();
        serde_json::to_writer(&mut text, &Chained { line, prev: &self.hash })?;
        let next = hash(&text[begin..]);
        text.push(b'\n');
        self.file.write_all(&text)?;
        (self.end, self.hash) = (length + text.len() as u64, next);
        Ok(())
    }
}

/// The hash of a line without its end; of none, nothing.
fn hash(line: &[u8]) -> String {
    if line.is_empty() { String::new() } else { hex(Sha256::digest(line)) }
}

/// The last line without its end, and whether it has one.
fn last_line(file: &mut File, length: u64) -> std::io::Result<(Vec<u8>, bool)> {
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_LINE_BYTES)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let is_whole = bytes.is_empty() || bytes.ends_with(b"\n");
    if is_whole {
        bytes.pop();
    }
    let begin = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Ok((bytes.split_off(begin), is_whole))
}

/// Follows the chain of an audit file from its first line to its last. Answers how many lines there are, and the last
/// one's hash.
///
/// # Errors
/// `Corrupt` with the number of the first line that does not continue the one before; `Unavailable` where the file
/// cannot be read.
pub fn verify(path: &Path) -> Result<(u64, String)> {
    let failed =
        |e: std::io::Error| Error::unavailable(format!("read the audit file `{}`", path.display())).with_source(e);
    let mut reader = BufReader::new(File::open(path).map_err(failed)?);
    let (mut count, mut previous, mut line) = (0, String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).map_err(failed)? == 0 {
            return Ok((count, previous));
        }
        let is_last = !line.ends_with(b"\n");
        if !is_last {
            line.pop();
        }
        count += 1;
        match serde_json::from_slice::<Value>(&line) {
            Ok(value) if value["prev"] == previous.as_str() => {}
            Ok(_) => return Err(broken(path, count, "does not continue the line before it")),
            // A line that was cut off by a kill is no JSON; the next one must continue it.
            Err(_) if is_last || reader.fill_buf().is_ok_and(|rest| continues(rest, &hash(&line))) => {}
            Err(_) => return Err(broken(path, count, "is no JSON, and the next one does not continue it")),
        }
        previous = hash(&line);
    }
}

fn continues(rest: &[u8], hash: &str) -> bool {
    let next = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
    serde_json::from_slice::<Value>(next).is_ok_and(|value| value["prev"] == hash)
}

fn broken(path: &Path, line: u64, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("audit file `{}`: line {line} {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn line(tool: &str) -> Line {
        Line {
            time_ms: 1,
            id: "i".to_owned(),
            principal: "me".to_owned(),
            client: "test 1".to_owned(),
            trace: None,
            tool: tool.to_owned(),
            arguments: serde_json::json!({"sql": "SELECT ?"}),
            digest: "d".to_owned(),
            verdict: "ok".to_owned(),
            rows: 1,
            bytes: 2,
            scanned_bytes: 3,
            latency_ms: 0.5,
        }
    }

    #[test]
    fn the_chain_goes_on_across_writers_and_kills() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/audit.jsonl");
        let (one, two) = (Audit::new(path.clone()), Audit::new(path.clone()));
        for audit in [&one, &two, &one, &one, &two] {
            audit.append(&line("search")).unwrap();
        }
        assert_eq!(verify(&path).unwrap().0, 5);
        let mut torn = fs::read(&path).unwrap();
        torn.extend_from_slice(br#"{"time_ms":1,"to"#);
        fs::write(&path, &torn).unwrap();
        assert_eq!(verify(&path).unwrap().0, 6);
        one.append(&line("peek_topic")).unwrap();
        assert_eq!(verify(&path).unwrap().0, 7);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(
            r#"{"time_ms":1,"id":"i","principal":"me","client":"test 1","tool":"search","arguments":{"sql":"SELECT ?"},"#
        ));
    }

    #[test]
    fn a_changed_a_missing_and_a_forged_line_show() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let audit = Audit::new(path.clone());
        for tool in ["a", "b", "c", "d"] {
            audit.append(&line(tool)).unwrap();
        }
        let whole = fs::read_to_string(&path).unwrap();
        let lines: Vec<&str> = whole.lines().collect();
        let check = |lines: &[&str], first_wrong: u64| {
            fs::write(&path, format!("{}\n", lines.join("\n"))).unwrap();
            let error = verify(&path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(error.to_string().contains(&format!("line {first_wrong} ")), "{error}");
        };
        let changed = lines[1].replace("\"ok\"", "\"no\"");
        check(&[lines[0], &changed, lines[2], lines[3]], 3);
        check(&[lines[0], lines[2], lines[3]], 2);
        check(&[lines[1], lines[2]], 1);
        check(&[lines[0], lines[1], lines[1], lines[2]], 3);
        check(&[lines[0], "garbage", lines[1]], 2);
        let error = Audit::new(dir.path().to_owned()).append(&line("a")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "a folder is no file");
    }
}
