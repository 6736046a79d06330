//! Lists by pages. A page's token is the last name on it, so that pages stay right while names come and go.

use std::num::NonZeroUsize;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::Refusal;

/// Names on a page where the client names no size; some 100 KB.
const PAGE_NAMES: usize = 1000;

/// In a token before the name, so that no token is empty: that one asks for the first page.
const AFTER: char = '>';

/// What clients may ask of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListQuery {
    /// The namespace to look into; empty: the outermost level.
    pub(super) parent: Option<String>,
    page_token: Option<String>,
    page_size: Option<NonZeroUsize>,
}

/// A page of `names`, which are sorted and unique, and the token of the next; everything where no page is asked for,
/// as the specification has it: a client that wants pages sends an empty token first.
pub(super) fn page(mut names: Vec<String>, query: &ListQuery) -> Result<(Vec<String>, Option<String>), Refusal> {
    let Some(token) = &query.page_token else { return Ok((names, None)) };
    if !token.is_empty() {
        let text = URL_SAFE_NO_PAD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let after = text.as_deref().and_then(|text| text.strip_prefix(AFTER));
        let after = after.ok_or_else(|| Refusal::bad_request("`pageToken` is not one that this catalog gave"))?;
        names.drain(..names.partition_point(|name| name.as_str() <= after));
    }
    let size = query.page_size.map_or(PAGE_NAMES, NonZeroUsize::get);
    if names.len() <= size {
        return Ok((names, None));
    }
    names.truncate(size);
    let next = names.last().map(|last| URL_SAFE_NO_PAD.encode(format!("{AFTER}{last}")));
    Ok((names, next))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn query(token: Option<&str>, size: Option<usize>) -> ListQuery {
        ListQuery { page_token: token.map(str::to_owned), page_size: size.and_then(NonZeroUsize::new), parent: None }
    }

    #[test]
    fn without_a_token_there_is_one_page() {
        let names: Vec<String> = (0..=PAGE_NAMES).map(|n| format!("{n:05}")).collect();
        assert_eq!(page(names.clone(), &query(None, Some(1))).unwrap(), (names.clone(), None));
        let (first, next) = page(names.clone(), &query(Some(""), None)).unwrap();
        assert_eq!(first.len(), PAGE_NAMES);
        let last = page(names, &query(next.as_deref(), None)).unwrap();
        assert_eq!(last, (vec![format!("{PAGE_NAMES:05}")], None));
    }

    #[test]
    fn a_strange_token_is_refused() {
        for token in ["?", "a", "_w", "b3JkZXJz"] {
            let refusal = page(vec![], &query(Some(token), None)).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.kind), (400, "BadRequestException"), "{token}");
        }
    }

    proptest! {
        /// Pages put together are the list, whatever vanished at a page's end meanwhile.
        #[test]
        fn pages_make_the_list(names in prop::collection::btree_set("\\PC{0,4}", 0..30), size in 1usize..10, vanish: bool) {
            let mut left: Vec<String> = names.iter().cloned().collect();
            let (mut seen, mut token) = (Vec::new(), Some(String::new()));
            while let Some(at) = token {
                let (page, next) = page(left.clone(), &query(Some(&at), Some(size))).unwrap();
                prop_assert!(page.len() <= size && (next.is_none() || page.len() == size));
                if vanish && let Some(last) = page.last() {
                    left.retain(|name| name != last);
                }
                seen.extend(page);
                prop_assert!(seen.len() <= names.len(), "it does not end");
                token = next;
            }
            prop_assert_eq!(seen, names.into_iter().collect::<Vec<_>>());
        }
    }
}
