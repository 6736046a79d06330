//! Turns the deserialiser's words into ours: the dotted key, what was found, the nearest known word. Knows serde's texts
//! for unknown fields and variants, and nothing of what settings mean.

use crate::error::Error;

/// Settings and words that are designed but not built yet; a user who writes one has not mistyped.
const LATER: [&str; 2] = ["rest", "retention"];

/// Names closer than this (Jaro-Winkler, 0 to 1) are offered as what was meant.
const LIKENESS_MIN: f64 = 0.8;

/// The error of setting `key`, for which serde says `text`.
pub(super) fn explain(key: &str, text: &str) -> Error {
    let (subject, what) = match (quoted_after(text, "unknown field "), quoted_after(text, "unknown variant ")) {
        (Some((name, known)), _) => (name, remedy(name, &known, "no setting of this name is known")),
        (_, Some((word, known))) => (word, remedy(word, &known, &format!("`{word}` is not among its words"))),
        _ if key == "." => return Error::invalid_config(format!("the configuration: {}", plain(text))),
        _ => ("", plain(text)),
    };
    let what = if LATER.contains(&subject) {
        format!("`{subject}` comes with a later version of frazil; leave it out")
    } else {
        what
    };
    Error::invalid_config(format!("setting `{key}`: {what}"))
}

/// The name in backticks behind `intro`, and all names in backticks after it.
fn quoted_after<'t>(text: &'t str, intro: &str) -> Option<(&'t str, Vec<&'t str>)> {
    let mut names = text.strip_prefix(intro)?.split('`').skip(1).step_by(2);
    Some((names.next()?, names.collect()))
}

fn remedy(found: &str, known: &[&str], problem: &str) -> String {
    let nearest = known.iter().map(|name| (strsim::jaro_winkler(found, name), name)).max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, name)) if likeness >= LIKENESS_MIN => format!("{problem}; did you mean `{name}`?"),
        _ => format!("{problem}; write one of `{}`", known.join("`, `")),
    }
}

/// Serde calls YAML's null a unit value, and shows strings that may be secrets.
fn plain(text: &str) -> String {
    let text = text.replace("unit value", "nothing");
    match (text.split_once("invalid type: string \""), text.rsplit_once("\", expected ")) {
        (Some((before, _)), Some((_, expected))) => format!("{before}invalid type: a string, expected {expected}"),
        _ => text,
    }
}
