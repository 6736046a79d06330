//! Texts from outside, before an agent reads them: what is invisible, moves the cursor or turns the reading direction is
//! taken out, long texts are cut, numbers that many programs would round become text.

use serde_json::Value;

/// Integers beyond this are rounded by whoever reads JSON numbers as doubles.
const EXACT_MAX: u64 = 1 << 53;

/// What has been changed.
pub(in crate::mcp) struct Cleaning {
    cell_bytes: usize,
    removed: usize,
    cut: usize,
    as_text: usize,
}

impl Cleaning {
    /// Texts may have `cell_bytes`.
    pub(in crate::mcp) fn new(cell_bytes: usize) -> Self {
        Self { cell_bytes, removed: 0, cut: 0, as_text: 0 }
    }

    /// What a reader should know of it.
    pub(in crate::mcp) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.removed > 0 {
            let text = "control, invisible and direction characters were taken out of the texts";
            warnings.push(format!("{} {text}", self.removed));
        }
        if self.cut > 0 {
            warnings.push(format!("{} texts were cut to {} bytes", self.cut, self.cell_bytes));
        }
        if self.as_text > 0 {
            warnings.push(format!("{} integers beyond 2^53 are given as text", self.as_text));
        }
        warnings
    }
}

/// Cleans all texts, names and numbers inside `value`.
pub(in crate::mcp) fn clean(value: &mut Value, cleaning: &mut Cleaning) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(number) => {
            let beyond = number.as_i64().map(i64::unsigned_abs).or(number.as_u64()).is_some_and(|n| n > EXACT_MAX);
            if beyond {
                cleaning.as_text += 1;
                *value = number.to_string().into();
            }
        }
        Value::String(text) => clean_text(text, cleaning),
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, cleaning)),
        Value::Object(object) => {
            if object.keys().any(|name| name.len() > cleaning.cell_bytes || name.chars().any(is_unwanted)) {
                let members = std::mem::take(object).into_iter().map(|(mut name, value)| {
                    clean_text(&mut name, cleaning);
                    (name, value)
                });
                *object = members.collect();
            }
            object.values_mut().for_each(|value| clean(value, cleaning));
        }
    }
}

fn clean_text(text: &mut String, cleaning: &mut Cleaning) {
    if text.chars().any(is_unwanted) {
        *text = without_escapes(text, cleaning);
        let before = text.chars().count();
        text.retain(|c| !is_unwanted(c));
        cleaning.removed += before - text.chars().count();
    }
    if text.len() > cleaning.cell_bytes {
        cleaning.cut += 1;
        let end = text.floor_char_boundary(cleaning.cell_bytes.saturating_sub('…'.len_utf8()));
        text.truncate(end);
        text.push('…');
    }
}

/// `text` without the control sequences of terminals (ECMA-48): the escape and its parameters, up to the final byte.
fn without_escapes(text: &str, cleaning: &mut Cleaning) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let introduced = match c {
            '\u{1b}' => match chars.next_if(|next| ['[', ']', 'P', 'X', '^', '_'].contains(next)) {
                Some('[') => Some(true),
                Some(_) => Some(false),
                None => {
                    out.push(c);
                    continue;
                }
            },
            '\u{9b}' => Some(true),
            _ => None,
        };
        match introduced {
            None => out.push(c),
            Some(is_csi) => {
                cleaning.removed += 1;
                while let Some(next) = chars.next_if(|next| *next != '\n') {
                    let ends =
                        if is_csi { ('@'..='~').contains(&next) } else { ['\u{7}', '\u{9c}', '\\'].contains(&next) };
                    if ends {
                        break;
                    }
                }
            }
        }
    }
    out
}

/// Controls but for line ends and tabs, zero-width characters, direction marks and overrides, tags, interlinear marks.
fn is_unwanted(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{180e}' | '\u{feff}' => true,
        '\u{115f}' | '\u{1160}' | '\u{3164}' | '\u{ffa0}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}' => true,
        c => c.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cleaned(mut value: Value, cell_bytes: usize) -> (Value, Vec<String>) {
        let mut cleaning = Cleaning::new(cell_bytes);
        clean(&mut value, &mut cleaning);
        (value, cleaning.warnings())
    }

    #[test]
    fn what_is_hidden_is_taken_out_and_told() {
        for (given, left) in [
            ("plain\n\tتحية 👩 é", "plain\n\tتحية 👩 é"),
            ("a\u{0}b\rc\u{7f}\u{85}", "abc"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{9b}2Jx\u{1b}", "x"),
            ("ig\u{200b}no\u{2060}re\u{feff}", "ignore"),
            ("user\u{202e}nimda\u{2066}", "usernimda"),
            ("hi\u{e0041}\u{e0042}", "hi"),
        ] {
            let (value, warnings) = cleaned(json!({"x": [given], given: 1}), 64);
            assert_eq!(value, json!({"x": [left], left: 1}), "{given:?}");
            assert_eq!(warnings.is_empty(), given == left, "{given:?}: {warnings:?}");
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters_and_large_integers_are_text() {
        let given = json!(["ééééééééé", "0123456789abcdef", 9_007_199_254_740_993_u64, -1, i64::MIN]);
        let (value, warnings) = cleaned(given, 16);
        assert_eq!(value, json!(["éééééé…", "0123456789abcdef", "9007199254740993", -1, "-9223372036854775808"]));
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }
}
