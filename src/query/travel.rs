//! Time travel in SQL: `t FOR VERSION AS OF 123` and `t FOR TIMESTAMP AS OF '2026-01-01T00:00:00Z'` become names that
//! the query's catalog understands, since the planner has no place for them.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use crate::error::{Error, ErrorKind, Result};
use crate::model::version::SnapshotAt;

/// The text with each `FOR … AS OF …` folded into the name before it. All else stays as it was written: tokens that
/// are printed again lose the quotes that are doubled inside of literals and names.
pub(super) fn fold(sql: &str) -> Result<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize_with_location();
    let tokens = tokens.map_err(|e| refuse(format!("the statement cannot be read: {e}")))?;
    let words: Vec<&TokenWithSpan> = tokens.iter().filter(|word| !matches!(word.token, Token::Whitespace(_))).collect();
    let (mut folded, mut copied) = (String::with_capacity(sql.len()), 0);
    for (at, clause) in words.windows(5).enumerate() {
        let [f, kind, a, o, value] = clause else { continue };
        if !(is(f, "FOR") && is(a, "AS") && is(o, "OF") && (is(kind, "VERSION") || is(kind, "TIMESTAMP"))) {
            continue;
        }
        let suffix = suffix(is(kind, "VERSION"), &value.token)?;
        let named = at.checked_sub(1).map(|before| words[before]);
        let Some(TokenWithSpan { token: Token::Word(word), span }) = named else {
            return Err(refuse("`FOR … AS OF …` belongs behind a table's name".to_owned()));
        };
        let name = match word.quote_style {
            None => word.value.to_lowercase(),
            Some(_) => word.value.replace('"', "\"\""),
        };
        // The dialect reads on in `/*! … */`, whose words all stand where the comment does.
        let Some(between) = sql.get(copied..offset(sql, span.start)) else {
            return Err(refuse("`FOR … AS OF …` cannot stand in a comment".to_owned()));
        };
        folded.push_str(between);
        folded.push_str(&format!("\"{name}{suffix}\""));
        copied = offset(sql, value.span.end);
    }
    folded.push_str(&sql[copied..]);
    Ok(folded)
}

/// Where a location, counted in lines and characters from 1, is in the text.
fn offset(sql: &str, location: Location) -> usize {
    let [lines, characters] =
        [location.line, location.column].map(|n| usize::try_from(n).map_or(0, |n| n.saturating_sub(1)));
    let line: usize = sql.split_inclusive('\n').take(lines).map(str::len).sum();
    sql[line..].char_indices().nth(characters).map_or(sql.len(), |(at, _)| line + at)
}

/// A name and the snapshot that [`fold`] put into it.
pub(super) fn split(name: &str) -> Result<(&str, Option<SnapshotAt>)> {
    let Some((name, at)) = name.split_once('@') else { return Ok((name, None)) };
    let (kind, number) = at.split_at_checked(1).unwrap_or((at, ""));
    let number: i64 = number.parse().map_err(|_| refuse(format!("`@{at}` names no snapshot")))?;
    match kind {
        "v" => Ok((name, Some(SnapshotAt::Id(number)))),
        "t" => Ok((name, Some(SnapshotAt::Timestamp(number)))),
        _ => Err(refuse(format!("`@{at}` names no snapshot"))),
    }
}

fn suffix(version: bool, value: &Token) -> Result<String> {
    match value {
        Token::Number(number, _) if version => Ok(format!("@v{number}")),
        Token::SingleQuotedString(text) if !version => {
            let time = chrono::DateTime::parse_from_rfc3339(text)
                .map_err(|_| refuse(format!("`{text}` is no time as in `2026-01-01T00:00:00Z`")))?;
            Ok(format!("@t{}", time.timestamp_millis()))
        }
        _ => Err(refuse("`FOR VERSION AS OF` takes a snapshot's id, `FOR TIMESTAMP AS OF` a quoted time".to_owned())),
    }
}

fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(held) if held.quote_style.is_none() && held.value.eq_ignore_ascii_case(word))
}

fn refuse(text: String) -> Error {
    Error::new(ErrorKind::InvalidRequest, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_become_names() {
        let check = |sql: &str, wanted: &str| assert_eq!(fold(sql).unwrap(), wanted);
        check("SELECT * FROM shop.Orders FOR VERSION AS OF 12 o", "SELECT * FROM shop.\"orders@v12\" o");
        check("SELECT 1 FROM \"A\" for timestamp as of '1970-01-01T00:00:01Z'", "SELECT 1 FROM \"A@t1000\"");
        check(
            "SELECT 'x FOR VERSION AS OF 1', substring(a FOR 2)",
            "SELECT 'x FOR VERSION AS OF 1', substring(a FOR 2)",
        );
        check("SELECT 'it''s', E'\\'', \"a\"\"b\" -- c''", "SELECT 'it''s', E'\\'', \"a\"\"b\" -- c''");
        check(
            "SELECT 'ß''',\n '''' FROM T /* x */ FOR\n VERSION AS OF 1, \"ü\"\"\" FOR VERSION AS OF 2",
            "SELECT 'ß''',\n '''' FROM \"t@v1\", \"ü\"\"@v2\"",
        );
        assert!(fold("SELECT 1 FROM t FOR VERSION AS OF 1 FOR VERSION AS OF 2").is_err());
        assert!(fold("SELECT * FROM t FOR VERSION AS OF 'yesterday'").is_err());
        assert_eq!(split("t@t-5").unwrap(), ("t", Some(SnapshotAt::Timestamp(-5))));
        assert_eq!(split("t").unwrap(), ("t", None));
        assert!(split("t@x1").is_err() && split("t@").is_err());
    }
}
