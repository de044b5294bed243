//! Policies, parsed once for each change of their documents.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use strongroom::policy::{Kind, Policy};
use strongroom::registry::Document;
use strongroom::{Digest, Lsn};

use crate::ecr::registry_documents::Found;

/// The text of the policies that are kept parsed, in bytes, and the most of them. Parsed, a policy takes up to 20 times
/// its text; of one that is set again and again, each is kept until there is no room.
const MAX_TEXT: usize = 1 << 20;
const MAX_PARSED: usize = 2000;

/// A policy that denies everything: in place of one that can't be read.
const DENY_ALL: &str = r#"{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}"#;

#[derive(Debug, Default)]
pub struct ParsedPolicies {
    of_repositories: Parsed<Lsn>,
    of_registries: Parsed<Digest>,
}

impl ParsedPolicies {
    /// The policy in a document of a repository.
    pub fn of_repository(&self, document: &Document) -> Arc<Policy> {
        self.of_repositories.get(document.revision, &document.content)
    }

    /// The policy in the registry's document.
    pub fn of_registry(&self, found: &Found) -> Arc<Policy> {
        self.of_registries.get(found.digest, &found.content)
    }
}

/// Policies by what names the text that they were parsed from.
#[derive(Debug)]
struct Parsed<K>(Mutex<Kept<K>>);

#[derive(Debug)]
struct Kept<K> {
    policies: HashMap<K, Arc<Policy>>,
    /// How long their texts are.
    text: usize,
}

impl<K> Default for Parsed<K> {
    fn default() -> Self {
        Self(Mutex::new(Kept { policies: HashMap::new(), text: 0 }))
    }
}

impl<K: Hash + Eq> Parsed<K> {
    fn get(&self, key: K, text: &[u8]) -> Arc<Policy> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().policies.get(&key) {
            return Arc::clone(known);
        }
        let policy = Arc::new(parse(text));
        let mut kept = lock();
        if kept.policies.len() >= MAX_PARSED || kept.text + text.len() > MAX_TEXT {
            (kept.policies, kept.text) = (HashMap::new(), 0);
        }
        if kept.policies.insert(key, Arc::clone(&policy)).is_none() {
            kept.text += text.len();
        }
        policy
    }
}

fn parse(text: &[u8]) -> Policy {
    let parsed = Policy::parse(&String::from_utf8_lossy(text), Kind::Resource);
    #[expect(clippy::expect_used, reason = "the text is a constant, and a test parses it")]
    parsed.unwrap_or_else(|error| {
        tracing::error!(%error, "a policy that is set can't be read: it denies everything");
        Policy::parse(DENY_ALL, Kind::Resource).expect("a policy")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_that_can_not_be_read_denies_everything() {
        assert_eq!(parse(b"{").kind(), Kind::Resource);
    }

    #[test]
    fn policies_are_kept_as_far_as_there_is_room_for_their_text() {
        let parsed = Parsed::default();
        let text = format!("{{\"Statement\":[]{}}}", " ".repeat(10_000));
        let (room, kept) = (MAX_TEXT / text.len(), || parsed.0.lock().unwrap().policies.len());
        let first = parsed.get(0, text.as_bytes());
        for key in 0..room {
            parsed.get(key, text.as_bytes());
        }
        assert!(kept() == room && Arc::ptr_eq(&first, &parsed.get(0, text.as_bytes())));
        parsed.get(room, text.as_bytes());
        assert!(kept() == 1 && !Arc::ptr_eq(&first, &parsed.get(0, text.as_bytes())));
    }
}
