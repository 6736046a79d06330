//! Cursors of lists: where the next page begins, sealed for one principal and one question. Nobody can make one up,
//! use another's, or go on with other arguments.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::view::Refused;
use crate::runtime::clock::Clock;

/// Bytes of a seal.
const SEAL_BYTES: usize = 16;
/// A fresh id has at least 32 random bits beside its time and counter, so that many have 256.
const FRESH_IDS: usize = 8;

/// Makes and opens cursors. Those of an earlier process do not open.
#[derive(Clone)]
pub(super) struct Sealer {
    key: [u8; 32],
}

impl Sealer {
    pub(super) fn new(clock: &Clock) -> Self {
        let mut hasher = Sha256::new();
        (0..FRESH_IDS).for_each(|_| hasher.update(clock.fresh_id()));
        Self { key: hasher.finalize().into() }
    }

    /// The cursor of the page behind `last`, for whoever asked `question`.
    pub(super) fn seal(&self, question: &str, last: &str) -> String {
        let mut bytes = self.mac(question, last.as_bytes()).to_vec();
        bytes.extend_from_slice(last.as_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Behind what the page begins.
    pub(super) fn open(&self, question: &str, cursor: &str) -> Result<String, Refused> {
        let open = || {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
            let (seal, last) = bytes.split_first_chunk::<SEAL_BYTES>()?;
            let is_ours =
                self.mac(question, last).iter().zip(seal).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0;
            is_ours.then(|| String::from_utf8(last.to_vec()).ok()).flatten()
        };
        open().ok_or_else(|| {
            Refused::new("wrong_cursor", "the cursor was not made for this question and this caller")
                .field("cursor")
                .next("begin again without a cursor, and go on with the same arguments")
        })
    }

    /// HMAC-SHA-256 (RFC 2104) of both, cut.
    fn mac(&self, question: &str, last: &[u8]) -> [u8; SEAL_BYTES] {
        let pad = |with: u8| {
            let mut block = [with; 64];
            self.key.iter().zip(&mut block).for_each(|(key, byte)| *byte ^= key);
            block
        };
        let length = (question.len() as u64).to_be_bytes();
        let inner =
            Sha256::new().chain_update(pad(0x36)).chain_update(length).chain_update(question).chain_update(last);
        let outer: [u8; 32] = Sha256::new().chain_update(pad(0x5c)).chain_update(inner.finalize()).finalize().into();
        let mut seal = [0; SEAL_BYTES];
        seal.copy_from_slice(&outer[..SEAL_BYTES]);
        seal
    }
}

/// A digest in hex.
pub(super) fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cursor_opens_for_its_own_question_only() {
        let sealer = Sealer::new(&Clock::simulated(1));
        let cursor = sealer.seal("me|list|{}", "shop.orders");
        assert_eq!(sealer.open("me|list|{}", &cursor).unwrap(), "shop.orders");
        let other = Sealer::new(&Clock::simulated(2));
        assert!(other.open("me|list|{}", &cursor).is_err(), "another process");
        let mut changed = cursor.clone();
        changed.replace_range(cursor.len() - 1.., if cursor.ends_with('A') { "B" } else { "A" });
        for (question, cursor) in [("you|list|{}", &cursor), ("me|list|{}", &changed), ("me|list|{}", &"?".to_owned())]
        {
            assert_eq!(sealer.open(question, cursor).unwrap_err().code, "wrong_cursor");
        }
    }
}
