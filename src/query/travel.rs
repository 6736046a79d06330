//! Time travel in SQL: `t FOR VERSION AS OF 123` and `t FOR TIMESTAMP AS OF '2026-01-01T00:00:00Z'` become names that
//! the query's catalog understands, since the planner has no place for them.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::error::{Error, ErrorKind, Result};
use crate::model::version::SnapshotAt;

/// The text with each `FOR … AS OF …` folded into the name before it.
pub(super) fn fold(sql: &str) -> Result<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|e| refuse(format!("the statement cannot be read: {e}")))?;
    let mut folded: Vec<Token> = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((token, after)) = rest.split_first() {
        let words: Vec<(usize, &Token)> =
            rest.iter().enumerate().filter(|(_, token)| !matches!(token, Token::Whitespace(_))).take(5).collect();
        let (at, used) = match words.as_slice() {
            [(_, f), (_, kind), (_, a), (_, o), (last, value)]
                if is(f, "FOR") && is(a, "AS") && is(o, "OF") && (is(kind, "VERSION") || is(kind, "TIMESTAMP")) =>
            {
                (suffix(is(kind, "VERSION"), value)?, last + 1)
            }
            _ => {
                folded.push(token.clone());
                rest = after;
                continue;
            }
        };
        while matches!(folded.last(), Some(Token::Whitespace(_))) {
            folded.pop();
        }
        let Some(Token::Word(word)) = folded.last_mut() else {
            return Err(refuse("`FOR … AS OF …` belongs behind a table's name".to_owned()));
        };
        if word.quote_style.is_none() {
            word.value = word.value.to_lowercase();
        }
        word.quote_style = Some('"');
        word.value.push_str(&at);
        rest = &rest[used..];
    }
    Ok(folded.iter().map(ToString::to_string).collect())
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

fn is(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(held) if held.quote_style.is_none() && held.value.eq_ignore_ascii_case(word))
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
        assert!(fold("SELECT * FROM t FOR VERSION AS OF 'yesterday'").is_err());
        assert_eq!(split("t@t-5").unwrap(), ("t", Some(SnapshotAt::Timestamp(-5))));
        assert_eq!(split("t").unwrap(), ("t", None));
        assert!(split("t@x1").is_err() && split("t@").is_err());
    }
}
