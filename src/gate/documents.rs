//! Keeps documents by the SHA-256 of their text, so that a document is parsed once and run often.
//!
//! The memory of the documents that clients sent is bounded, and the least useful ones are evicted. A persisted query may
//! therefore be forgotten; the client must then send its text again. Listed documents are never evicted. If there is a list,
//! other documents run only for callers with [`Rights::unlisted`].

use std::collections::HashMap;
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::document::{Document, Rules};
use super::limits::Limits;
use super::refusal::{Code, Refusal};
use super::scan::scan;
use super::{Request, Rights};

/// The assumed memory of a parsed document per byte of its text. A process that keeps thousands of documents of 22 to 2 000 bytes
/// each grows by 41 to 86 bytes per byte of text.
pub(super) const BYTES_PER_TEXT_BYTE: usize = 96;
/// The assumed memory of a document in addition to [`BYTES_PER_TEXT_BYTE`].
const DOCUMENT_BYTES: usize = 1024;
/// The estimated memory of an ordinary document or plan.
const MEAN_BYTES: u64 = 20 << 10;

/// The SHA-256 of a document's text.
pub(super) type Hash = [u8; 32];

/// The documents that are known.
pub(super) struct Documents {
    recent: Cache<Hash, Arc<Document>, Weight>,
    listed: Option<HashMap<Hash, Arc<Document>>>,
}

/// Estimates how many documents or plans such a memory holds.
pub(super) fn estimated(bytes: u64) -> usize {
    usize::try_from(bytes / MEAN_BYTES).unwrap_or(usize::MAX)
}

/// Weighs a document.
#[derive(Clone)]
struct Weight;

impl Weighter<Hash, Arc<Document>> for Weight {
    fn weight(&self, _: &Hash, document: &Arc<Document>) -> u64 {
        document.bytes() as u64
    }
}

impl Documents {
    /// Creates a store that keeps sent documents in about [`Limits::documents_bytes`] of memory.
    pub(super) fn new(limits: &Limits) -> Self {
        let bytes = limits.documents_bytes;
        Self { recent: Cache::with_weighter(estimated(bytes), bytes, Weight), listed: None }
    }

    /// Sets the list of documents. Returns the first refusal of a text that is not valid.
    pub(super) fn list(&mut self, rules: &Rules<'_>, texts: &[String]) -> Result<(), Refusal> {
        let mut listed = HashMap::new();
        for text in texts {
            let document = Document::parse(rules, text).map_err(|mut refusals| refusals.swap_remove(0))?;
            listed.insert(hash_of(text), Arc::new(document));
        }
        self.listed = Some(listed);
        Ok(())
    }

    /// Returns how many tokens would have to be parsed. The number is 0 if the document is known or the request has only a hash.
    pub(super) fn unread_tokens(&self, limits: &Limits, text: &str) -> u32 {
        let is_known = |text| {
            let hash = hash_of(text);
            self.listed.as_ref().is_some_and(|listed| listed.contains_key(&hash)) || self.recent.contains_key(&hash)
        };
        if text.is_empty() || (text.len() <= limits.text_bytes && is_known(text)) {
            return 0;
        }
        // A text that the scan refuses counts as one of the largest texts.
        scan(text, limits).map_or(limits.tokens, |scanned| scanned.tokens)
    }

    /// Returns the document that the request sends or names.
    pub(super) fn find(
        &self,
        rules: &Rules<'_>,
        request: &Request<'_>,
        rights: Rights,
    ) -> Result<Arc<Document>, Vec<Refusal>> {
        let refuse = |code, message: &str| Err(vec![Refusal::new(code, message)]);
        let hash = match (request.query, request.hash.map(parse_hash)) {
            (_, Some(None)) => return refuse(Code::BadUserInput, "sha256Hash must be 64 hexadecimal digits"),
            ("", Some(Some(hash))) => hash,
            // Hashing takes time linear in the text, so a text over the limit is refused before it is hashed.
            (text, _) if text.is_empty() || text.len() > rules.limits.text_bytes => {
                return Document::parse(rules, text).map(Arc::new);
            }
            (text, hash) => {
                let of_text = hash_of(text);
                if hash.is_some_and(|hash| hash != Some(of_text)) {
                    return refuse(Code::BadUserInput, "sha256Hash is not the hash of `query`");
                }
                of_text
            }
        };
        if let Some(listed) = &self.listed {
            match listed.get(&hash) {
                Some(document) => return Ok(Arc::clone(document)),
                None if !rights.unlisted && request.query.is_empty() => return unknown(),
                None if !rights.unlisted => {
                    return refuse(Code::Forbidden, "only the documents that this server lists can be run");
                }
                None => {}
            }
        }
        match self.recent.get(&hash) {
            Some(document) => Ok(document),
            None if request.query.is_empty() => unknown(),
            None => {
                let document = Arc::new(Document::parse(rules, request.query)?);
                self.recent.insert(hash, Arc::clone(&document));
                Ok(document)
            }
        }
    }
}

impl Document {
    /// Estimates the memory of the document.
    fn bytes(&self) -> usize {
        DOCUMENT_BYTES + BYTES_PER_TEXT_BYTE * self.text_bytes()
    }
}

/// Clients of automatic persisted queries look for exactly this message, or for the code.
fn unknown<T>() -> Result<T, Vec<Refusal>> {
    Err(vec![Refusal::new(Code::PersistedQueryNotFound, "PersistedQueryNotFound")])
}

pub(super) fn hash_of(text: &str) -> Hash {
    Sha256::digest(text).into()
}

fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (index, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok()?;
    }
    Some(hash)
}

#[cfg(test)]
mod tests {
    use super::super::fixture::{SDL, gate, text};
    use super::super::{Gate, Limits, Scalars};
    use super::*;

    const TEXT: &str = "{ me { id } }";

    fn ask(gate: &Gate<String>, query: &str, hash: Option<&str>, rights: Rights) -> Result<String, Code> {
        let request = Request { query, hash, operation_name: None, variables: "" };
        gate.admit(&request, rights).map(|admitted| admitted.document.clone()).map_err(|refusals| refusals[0].code)
    }

    fn hex(text: &str) -> String {
        hash_of(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn a_text_that_was_sent_can_be_named_by_its_hash() {
        let (gate, none, hash) = (gate(), Rights::default(), hex(TEXT));
        assert_eq!(ask(&gate, "", Some(&hash), none), Err(Code::PersistedQueryNotFound));
        assert_eq!(ask(&gate, TEXT, Some(&hash), none), Ok("query{me{id}}".to_owned()));
        assert_eq!(ask(&gate, "", Some(&hash.to_uppercase()), none), Ok("query{me{id}}".to_owned()));
        assert_eq!(ask(&gate, "{ me { label } }", Some(&hash), none), Err(Code::BadUserInput));
        for wrong in ["", "00", &hash[1..], &format!("{}é", &hash[2..]), &format!("+{}", &hash[1..])] {
            assert_eq!(ask(&gate, "", Some(wrong), none), Err(Code::BadUserInput), "{wrong}");
        }
        assert_eq!(ask(&gate, "", None, none), Err(Code::GraphqlParseFailed));
    }

    #[test]
    fn where_there_is_a_list_nothing_else_runs() {
        let mut gate = gate();
        gate.list(&[TEXT.to_owned()]).unwrap();
        let (none, other) = (Rights::default(), "{ me { label } }");
        for (query, hash) in [(TEXT, None), ("", Some(hex(TEXT)))] {
            assert_eq!(ask(&gate, query, hash.as_deref(), none), Ok("query{me{id}}".to_owned()));
        }
        assert_eq!(ask(&gate, other, None, none), Err(Code::Forbidden));
        assert_eq!(ask(&gate, "", Some(&hex(other)), none), Err(Code::PersistedQueryNotFound));
        let unlisted = Rights { unlisted: true, ..none };
        assert_eq!(ask(&gate, other, None, unlisted), Ok("query{me{label}}".to_owned()));
        // Running a document for a caller with the right does not add the document to the list.
        assert_eq!(ask(&gate, "", Some(&hex(other)), none), Err(Code::PersistedQueryNotFound));
        assert!(gate.list(&["{ nope }".to_owned()]).is_err());
    }

    #[test]
    fn tokens_count_until_they_have_been_parsed() {
        let mut gate = gate();
        let tokens = |gate: &Gate<String>, query: &str| {
            gate.unread_tokens(&Request { query, hash: None, operation_name: None, variables: "" })
        };
        assert_eq!(tokens(&gate, TEXT), 6);
        assert!(ask(&gate, TEXT, None, Rights::default()).is_ok());
        assert_eq!((tokens(&gate, TEXT), tokens(&gate, "")), (0, 0));
        // A document that is not valid must be parsed each time.
        let invalid = "{ me { nothing } }";
        assert!(ask(&gate, invalid, None, Rights::default()).is_err());
        assert_eq!(tokens(&gate, invalid), 6);
        let limits = Limits::default();
        for unreadable in ["{ \"".to_owned(), "a ".repeat(2_000), " ".repeat(limits.text_bytes + 1)] {
            assert_eq!(tokens(&gate, &unreadable), limits.tokens);
        }
        gate.list(&["{ me { label } }".to_owned()]).unwrap();
        assert_eq!(tokens(&gate, "{ me { label } }"), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let limits = Limits { documents_bytes: 1 << 20, ..Limits::default() };
        let gate = Gate::new(SDL, Scalars::default(), limits, text).unwrap();
        for n in 0..2_000 {
            assert!(ask(&gate, &format!("{{ me {{ a{n}: id }} }}"), None, Rights::default()).is_ok());
        }
        assert!(gate.documents.recent.weight() <= 1 << 20);
        assert!(gate.documents.recent.len() > 100);
    }
}
