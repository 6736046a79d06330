//! Words of texts, as the index's full-text search takes them apart; and their ranking among records that are not
//! indexed yet.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use arrow::array::{Array, StringArray};
use lance_index::scalar::inverted::InvertedIndexParams;
use lance_index::scalar::inverted::document_tokenizer::LanceTokenizer;

use crate::error::{Error, Result};

/// BM25's usual constants: how soon a repeated word counts no more, and how much a long text counts less.
const K1: f32 = 1.2;
const B: f32 = 0.75;
/// Bytes of a snippet.
const SNIPPET_BYTES: usize = 240;

/// Longer words are not indexed: a hash in hex is.
const WORD_BYTES_MAX: usize = 128;
/// Bytes of an identifier at least: a year is none.
const IDENTIFIER_BYTES_MIN: usize = 5;

/// How texts are taken apart: lower case, English stems, without the commonest English words, accents folded.
pub(super) fn analyzer() -> InvertedIndexParams {
    InvertedIndexParams::default().remove_stop_words(true).max_token_length(Some(WORD_BYTES_MAX))
}

/// Takes texts apart as [`analyzer`] says.
///
/// # Errors
/// `Bug` where the analyzer cannot be built.
pub(super) fn tokenizer() -> Result<Box<dyn LanceTokenizer>> {
    analyzer().build().map_err(|e| Error::bug("build the tokenizer").with_source(e))
}

/// The words of a query. In an order, so that scores are summed up alike each time that it is asked.
pub(super) fn words(query: &str, tokenizer: &mut Box<dyn LanceTokenizer>) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    tokenizer.token_stream_for_search(query).process(&mut |token| {
        words.insert(token.text.clone());
    });
    words
}

/// How many of the query's words stand in `text`.
pub(super) fn count(text: &str, query: &BTreeSet<String>, tokenizer: &mut Box<dyn LanceTokenizer>) -> usize {
    let mut found: HashSet<&String> = HashSet::new();
    tokenizer.token_stream_for_doc(text).process(&mut |token| {
        found.extend(query.get(&token.text));
    });
    found.len()
}

/// The identifiers in a query, as `INV-2026-004711`, lower case. Taken apart into words, they would be like many others.
pub(super) fn identifiers(query: &str) -> Vec<String> {
    let trimmed = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    let is_one = |word: &String| word.len() >= IDENTIFIER_BYTES_MIN && word.bytes().any(|byte| byte.is_ascii_digit());
    query.split_whitespace().map(trimmed).filter(is_one).collect()
}

/// True where `text` has the identifier as a whole, not as a part of a longer one.
pub(super) fn names(text: &str, identifier: &str) -> bool {
    let text = text.to_lowercase();
    let is_end = |next: Option<char>| next.is_none_or(|c| !c.is_alphanumeric());
    text.match_indices(identifier)
        .any(|(at, found)| is_end(text[..at].chars().next_back()) && is_end(text[at + found.len()..].chars().next()))
}

/// Where each word stands in a batch of texts.
#[derive(Debug)]
pub(super) struct Words {
    /// Per word the texts that have it, and how often.
    found: HashMap<String, Vec<(u32, u32)>>,
    /// Words in each text.
    lengths: Vec<u32>,
}

impl Words {
    /// Of `texts`.
    pub(super) fn of(texts: &StringArray, tokenizer: &mut Box<dyn LanceTokenizer>) -> Self {
        let mut found: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
        let mut lengths = Vec::with_capacity(texts.len());
        for (row, text) in (0..).zip(texts.iter()) {
            let mut length = 0;
            tokenizer.token_stream_for_doc(text.unwrap_or_default()).process(&mut |token| {
                length += 1;
                let texts = match found.get_mut(&token.text) {
                    Some(texts) => texts,
                    None => found.entry(token.text.clone()).or_default(),
                };
                match texts.last_mut().filter(|(last, _)| *last == row) {
                    Some((_, times)) => *times += 1,
                    None => texts.push((row, 1)),
                }
            });
            lengths.push(length);
        }
        Self { found, lengths }
    }
}

/// BM25 scores of the texts in `batches` that have any word of `query`: batch, row, score; in no order.
pub(super) fn score(query: &BTreeSet<String>, batches: &[&Words]) -> Vec<(usize, usize, f32)> {
    let texts: usize = batches.iter().map(|words| words.lengths.len()).sum();
    let total: u64 = batches.iter().flat_map(|words| &words.lengths).map(|length| u64::from(*length)).sum();
    let mean = (total as f32 / texts.max(1) as f32).max(1.0);
    let mut scores: HashMap<(usize, u32), f32> = HashMap::new();
    for word in query {
        let having: usize = batches.iter().filter_map(|words| words.found.get(word)).map(Vec::len).sum();
        let rarity = (1.0 + (texts as f32 - having as f32 + 0.5) / (having as f32 + 0.5)).ln();
        for (at, words) in batches.iter().enumerate() {
            for (row, times) in words.found.get(word).into_iter().flatten() {
                let length = words.lengths[*row as usize] as f32;
                let times = *times as f32;
                let weight = times * (K1 + 1.0) / (times + K1 * (1.0 - B + B * length / mean));
                *scores.entry((at, *row)).or_default() += rarity * weight;
            }
        }
    }
    scores.into_iter().map(|((at, row), score)| (at, row as usize, score)).collect()
}

/// The part of `text` with the most different words of the query, and where they stand in it.
pub(super) fn snippet(
    text: &str,
    query: &BTreeSet<String>,
    tokenizer: &mut Box<dyn LanceTokenizer>,
) -> (String, Vec<Range<usize>>) {
    let mut found: Vec<(Range<usize>, String)> = Vec::new();
    tokenizer.token_stream_for_doc(text).process(&mut |token| {
        if query.contains(&token.text) {
            found.push((token.offset_from..token.offset_to, token.text.clone()));
        }
    });
    let reach = |first: usize| {
        let begin = found[first].0.start;
        found[first..].iter().take_while(move |(span, _)| span.end <= begin + SNIPPET_BYTES)
    };
    let different = |first: usize| reach(first).map(|(_, word)| word).collect::<HashSet<_>>().len();
    let best = (0..found.len()).max_by_key(|first| (different(*first), std::cmp::Reverse(*first)));
    // What stands around the words fills what is left of the snippet, on both sides alike.
    let words =
        best.map_or(0..0, |first| found[first].0.start..reach(first).map(|(span, _)| span.end).max().unwrap_or(0));
    let spare = SNIPPET_BYTES.saturating_sub(words.len()) / 2;
    let mut begin = words.start.saturating_sub(spare).min(text.len().saturating_sub(SNIPPET_BYTES));
    if begin > 0 {
        // Never inside a word.
        begin = text[..words.start]
            .char_indices()
            .find(|(at, c)| *at >= begin && c.is_whitespace())
            .map_or(words.start, |(at, c)| at + c.len_utf8());
    }
    let most = (begin + SNIPPET_BYTES).min(text.len());
    let mut end = (begin..=most).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(begin);
    if end < text.len() {
        end = text[begin..end].rfind(char::is_whitespace).map_or(end, |at| begin + at).max(words.end.min(end));
    }
    let inside = found.into_iter().map(|(span, _)| span).filter(|span| span.start >= begin && span.end <= end);
    (text[begin..end].to_owned(), inside.map(|span| span.start - begin..span.end - begin).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rarer_words_and_shorter_texts_count_more() {
        let mut tokenizer = tokenizer().unwrap();
        let texts = StringArray::from(vec![
            "the printer is broken",
            "the invoice is wrong",
            "the printer prints the invoice twice and nobody knows why it does so",
            "nothing of interest",
        ]);
        let all = Words::of(&texts, &mut tokenizer);
        let mut scores = score(&words("Printers, invoice", &mut tokenizer), &[&all]);
        scores.sort_by(|a, b| b.2.total_cmp(&a.2));
        assert_eq!(scores.iter().map(|(_, row, _)| *row).collect::<Vec<_>>()[0], 2, "it has both words");
        assert_eq!(scores.len(), 3);
    }

    #[test]
    fn an_identifier_is_named_as_a_whole() {
        assert_eq!(identifiers("what of (INV-2026-004711), since 2026?"), ["inv-2026-004711"]);
        assert!(identifiers("why is the printer broken").is_empty());
        let check = |text: &str, is_named: bool| assert_eq!(names(text, "inv-2026-0047"), is_named, "{text:?}");
        check("Reference INV-2026-0047.", true);
        check("inv-2026-0047", true);
        check("INV-2026-00471 and XINV-2026-0047", false);
        check("INV-2026-00471, then INV-2026-0047", true);
        check("ORD-2026-0047", false);
    }

    #[test]
    fn each_word_of_the_query_counts_once() {
        let mut tokenizer = tokenizer().unwrap();
        let query = words("jammed printers, wrong invoice", &mut tokenizer);
        assert_eq!(count("The printer of printers was jammed", &query, &mut tokenizer), 2);
        assert_eq!(count("nothing of interest", &query, &mut tokenizer), 0);
    }

    #[test]
    fn a_snippet_shows_the_words_where_they_stand() {
        let mut tokenizer = tokenizer().unwrap();
        let text =
            format!("{} the Printer was jammed, the printer is hot. {}", "filler é ".repeat(90), "more ".repeat(90));
        let (snippet, matches) = snippet(&text, &words("jammed printers", &mut tokenizer), &mut tokenizer);
        assert!(snippet.len() <= SNIPPET_BYTES, "{}", snippet.len());
        let found: Vec<&str> = matches.iter().map(|span| &snippet[span.clone()]).collect();
        assert_eq!(found, ["Printer", "jammed", "printer"]);
    }

    #[test]
    fn a_snippet_without_words_is_the_beginning() {
        let mut tokenizer = tokenizer().unwrap();
        let (short, matches) = snippet("größer", &BTreeSet::new(), &mut tokenizer);
        assert_eq!((short.as_str(), matches.len()), ("größer", 0));
        let (long, _) = snippet(&"wörd ".repeat(100), &BTreeSet::new(), &mut tokenizer);
        assert!(long.len() <= SNIPPET_BYTES && long.starts_with("wörd") && long.ends_with("wörd"), "{long:?}");
    }
}
