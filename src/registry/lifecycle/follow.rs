//! Artifacts that follow their subjects: signatures, attestations, lists of components.
//!
//! A subject may itself follow another image, so a decision runs down chains, each record once. Keys are the caller's:
//! in a circle of them, which digests can't make, none takes over anything from another one.

use super::evaluate::{Decision, Record};
use super::image::{ImageStatus, Parent};
use super::policy::ActionKind;

/// The records whose subject is there too, with the numbers of both, in the order of the first.
#[derive(Debug)]
pub(super) struct Followers(Vec<(usize, usize)>);

/// How far the decision about a follower is.
#[derive(Clone, Copy, Debug)]
enum Progress {
    Unknown,
    /// It waits for that about its subject.
    Waiting,
    Known(Option<Decision>),
}

impl Followers {
    /// Finds them, in the time of sorting the records where there are subjects at all.
    pub(super) fn find<K: Ord>(records: &[Record<K>], subjects: &[(usize, K)]) -> Self {
        if subjects.is_empty() {
            return Self(Vec::new());
        }
        let mut by_key: Vec<(&K, usize)> = records.iter().enumerate().map(|(at, record)| (&record.key, at)).collect();
        by_key.sort_unstable();
        let present = subjects.iter().filter_map(|(follower, subject)| {
            let found = by_key.get(by_key.partition_point(|(key, _)| *key < subject))?;
            (found.0 == subject).then_some((*follower, found.1))
        });
        Self(present.collect())
    }

    fn place(&self, record: usize) -> Option<usize> {
        self.0.binary_search_by_key(&record, |(follower, _)| *follower).ok()
    }

    /// Whether a record is one of them.
    pub(super) fn has(&self, record: usize) -> bool {
        self.place(record).is_some()
    }

    pub(super) fn numbers(&self) -> impl Iterator<Item = usize> {
        self.0.iter().map(|(follower, _)| *follower)
    }

    /// What is done with each of them, given what rules say about each record by itself.
    pub(super) fn decide<K>(
        &self,
        records: &[Record<K>],
        own: impl Fn(usize) -> Option<Decision>,
    ) -> Vec<(usize, Decision)> {
        let mut progress = vec![Progress::Unknown; self.0.len()];
        let mut chain = Vec::new();
        for start in 0..self.0.len() {
            // Up to an image that follows none, or about which it is known,
            let mut next = Some(start);
            let mut above = None;
            let mut circle = usize::MAX;
            while let Some(at) = next {
                let Some(state) = progress.get_mut(at) else { break };
                match *state {
                    Progress::Known(known) => {
                        above = known;
                        break;
                    }
                    Progress::Waiting => {
                        circle = chain.iter().position(|waiting| *waiting == at).unwrap_or(usize::MAX);
                        break;
                    }
                    Progress::Unknown => *state = Progress::Waiting,
                }
                chain.push(at);
                let Some(&(_, subject)) = self.0.get(at) else { break };
                next = self.place(subject);
                if next.is_none() {
                    above = own(subject);
                }
            }
            // and down again.
            while let Some(at) = chain.pop() {
                let Some(&(follower, subject)) = self.0.get(at) else { continue };
                let is_in_circle = chain.len() >= circle;
                let inherited = if is_in_circle { None } else { inherit(records, follower, subject, above) };
                above = stronger(own(follower), inherited);
                if let Some(state) = progress.get_mut(at) {
                    *state = Progress::Known(above);
                }
            }
        }
        let known = self.numbers().zip(progress).filter_map(|(follower, progress)| match progress {
            Progress::Known(Some(decision)) => Some((follower, decision)),
            _ => None,
        });
        known.collect()
    }
}

/// What a follower takes over from its subject.
fn inherit<K>(records: &[Record<K>], follower: usize, subject: usize, decision: Option<Decision>) -> Option<Decision> {
    let (at, below) = (records.get(subject)?, records.get(follower)?);
    if below.parent != Parent::None || below.status == ImageStatus::Activating {
        return None;
    }
    let decision = match decision {
        Some(decision) => decision,
        None if at.status == ImageStatus::Archived && below.status != ImageStatus::Archived => {
            // It was archived before, by somebody or by a plan that was cut short: nothing is to be waited for.
            let kind = ActionKind::Archive;
            return Some(Decision { kind, rule_priority: None, root: subject, depth: 1, subject: None });
        }
        None => return None,
    };
    if decision.kind == ActionKind::Archive && below.status == ImageStatus::Archived {
        return None;
    }
    Some(Decision { depth: decision.depth + 1, subject: Some(subject), ..decision })
}

/// Of what a rule says of a follower and what it takes over: to expire rather than to archive, its own before others'.
fn stronger(own: Option<Decision>, inherited: Option<Decision>) -> Option<Decision> {
    match (own, inherited) {
        (Some(own), Some(inherited)) if inherited.kind > own.kind => Some(inherited),
        (own, inherited) => own.or(inherited),
    }
}
