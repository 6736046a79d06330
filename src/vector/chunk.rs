//! Long texts in pieces that a vector can stand for: whole sentences, each piece beginning with the last one's end.

use unicode_segmentation::UnicodeSegmentation;

/// Bytes of a piece at most: a page of a ticket, some 250 words. Beyond it one vector says too little of each part.
const PIECE_BYTES_MAX: usize = 1500;
/// Bytes that a piece repeats of the one before it at most, so that what spans both is found.
const OVERLAP_BYTES_MAX: usize = 200;

/// The pieces of `text`, in order; none where it is blank.
pub(super) fn pieces(text: &str) -> Vec<&str> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    if text.len() <= PIECE_BYTES_MAX {
        return vec![text];
    }
    let sentences: Vec<(usize, &str)> = text.split_sentence_bound_indices().flat_map(split_long).collect();
    let (mut pieces, mut first) = (Vec::new(), 0);
    while first < sentences.len() {
        let begin = sentences[first].0;
        let end_of = |at: usize| sentences[at].0 + sentences[at].1.len();
        let mut last = first;
        while last + 1 < sentences.len() && end_of(last + 1) - begin <= PIECE_BYTES_MAX {
            last += 1;
        }
        pieces.push(text[begin..end_of(last)].trim());
        if last + 1 == sentences.len() {
            break;
        }
        let repeats = last > first && sentences[last].1.len() <= OVERLAP_BYTES_MAX;
        first = if repeats { last } else { last + 1 };
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// A sentence that is too long for a piece, cut between words.
fn split_long((begin, sentence): (usize, &str)) -> Vec<(usize, &str)> {
    let (mut parts, mut rest, mut at) = (Vec::new(), sentence, begin);
    while rest.len() > PIECE_BYTES_MAX {
        let most = (0..=PIECE_BYTES_MAX).rev().find(|end| rest.is_char_boundary(*end)).unwrap_or(rest.len());
        let end = rest[..most].rfind(char::is_whitespace).filter(|end| *end > 0).unwrap_or(most);
        parts.push((at, &rest[..end]));
        at += end;
        rest = &rest[end..];
    }
    parts.push((at, rest));
    parts
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_one_piece_and_a_blank_one_none() {
        assert_eq!(pieces("  hello there. general.\n"), ["hello there. general."]);
        assert!(pieces(" \n\t").is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_sentences_which_overlap() {
        let text = (0..100).map(|n| format!("This is sentence number {n} of them.")).collect::<Vec<_>>().join(" ");
        let found = pieces(&text);
        assert!(found.len() > 2);
        for pair in found.windows(2) {
            let first = pair[1].split_inclusive(". ").next().unwrap().trim();
            assert!(pair[0].ends_with(first), "{first:?} is not the end of {:?}", pair[0]);
        }
    }

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_piece_too_long(words in prop::collection::vec("[a-zé]{1,12}[.!]?", 1..900)) {
            let text = words.join(" ");
            let found = pieces(&text);
            let mut left = words.iter().peekable();
            for piece in &found {
                prop_assert!(piece.len() <= PIECE_BYTES_MAX);
                for word in piece.split_whitespace() {
                    if left.peek().is_some_and(|next| next.as_str() == word) {
                        left.next();
                    }
                }
            }
            prop_assert!(left.next().is_none());
        }
    }

    #[test]
    fn a_word_longer_than_a_piece_is_cut() {
        let text = "é".repeat(2 * PIECE_BYTES_MAX);
        assert_eq!(pieces(&text).concat(), text);
    }
}
