//! Changes that maintenance makes: removing expired links and what deleted repositories left, and recording pulls.

use super::{is_there, set_link, unlink};
use crate::digest::Digest;
use crate::error::Result;
use crate::facts::find;
use crate::facts::{Family, Idle, Key, LinkFact, Lookup, ManifestFact, Named, PullFact, TagFact};
use crate::id::RepositoryId;
use crate::transaction::{Apply, Changes, MANY, Op};

/// Removes links whose grace period has passed from a repository.
#[derive(Debug)]
pub(crate) struct Expire {
    pub(crate) repository: Named,
    /// Their entries in the idle list, and their digests, which are for followers of events.
    pub(crate) links: Vec<(Idle, Option<Digest>)>,
}

impl Apply for Expire {
    fn reads_much(&self) -> bool {
        self.links.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let (named, now) = (&self.repository, facts.now().open);
        let mut ops = Vec::new();
        if !is_there(facts, named)? {
            return Ok(ops); // deleted meanwhile, with its links
        }
        for (idle, digest) in &self.links {
            // No entry any more: somebody relies on the blob, a manifest holds it, or it is gone.
            if facts.idle(idle)?.is_none() || !facts.retention().has_expired(idle.time, now) {
                continue;
            }
            if let Some(link) = facts.decode(&idle.key, LinkFact::decode)? {
                unlink(facts, idle.key, &link)?;
                facts.tally.links += 1;
                ops.extend(digest.map(|digest| Op::Unlink { repository: named.clone(), digest }));
            }
        }
        Ok(ops)
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Removes facts that are left of a deleted repository.
#[derive(Debug)]
pub(crate) struct Purge {
    pub(crate) repository: RepositoryId,
    pub(crate) keys: Vec<Key>,
}

impl Apply for Purge {
    fn reads_much(&self) -> bool {
        self.keys.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let mut tags = Vec::new();
        for key in &self.keys {
            if key.family == Family::Document {
                facts.set(*key, None); // long, and nothing follows from what it says
                continue;
            }
            let Some(value) = facts.get(key)? else { continue };
            let (value, invalid) = (value.as_bytes(), || facts.invalid(key));
            match key.family {
                Family::Tag => tags.push(TagFact::decode(value).ok_or_else(invalid)?.tag),
                Family::Manifest => {
                    let manifest = ManifestFact::decode(value).ok_or_else(invalid)?;
                    facts.release_from(&manifest.digest, key)?;
                }
                Family::Link => {
                    let link = LinkFact::decode(value).ok_or_else(invalid)?;
                    facts.release_key(link.blob(key), key)?;
                    set_link(facts, *key, Some(&link), None);
                }
                _ => {}
            }
            facts.set(*key, None);
        }
        Ok(if tags.is_empty() { Vec::new() } else { vec![Op::Purge { repository: self.repository, tags }] })
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Notes when manifests were pulled last.
#[derive(Debug)]
pub(crate) struct NotePulls(pub(crate) Vec<(Named, Digest, u64)>);

impl Apply for NotePulls {
    fn reads_much(&self) -> bool {
        self.0.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for (named, digest, time) in &self.0 {
            let key = Key::of_digest(facts.domain(), Family::Pull, named.id, digest);
            let known = facts.decode(&key, PullFact::decode)?;
            let is_newer = known.is_none_or(|known| known.pulled < *time);
            if is_newer && is_there(facts, named)? && find::manifest(facts, named.id, digest)?.is_some() {
                facts.set(key, Some(PullFact { pulled: *time }.encode()));
                ops.push(Op::Pull { repository: named.clone(), digest: *digest, time: *time });
            }
        }
        Ok(ops)
    }
}
