//! Whether what clients saw at the same time could have come one after the other.
//!
//! A history is *linearizable* if its operations can be put in an order in which each comes between its call and its
//! return and has the outcome that its client saw (Herlihy and Wing). The search takes any operation that was called
//! before all others left have returned, and goes on from the state it leads to; a set of operations done and the state
//! they led to is looked at once (Wing and Gong, Lowe).

use std::collections::HashSet;
use std::fmt;

use strongroom::Digest;

use super::repositories::{Action, Outcome, Push, Refusal, Repository, apply};

/// What a client did to a repository, and what it saw.
#[derive(Clone, Debug)]
pub enum Seen {
    Call(Box<Action>, Outcome),
    /// It mounted a blob elsewhere, for which it had to be here, or was found not to be.
    Has(Digest, bool),
}

/// An operation with the moments of its call and its return.
#[derive(Clone, Debug)]
pub struct Operation {
    pub called: u64,
    pub returned: u64,
    pub seen: Seen,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{} ", self.called, self.returned)?;
        let Seen::Call(action, outcome) = &self.seen else { return write!(f, "{:?}", self.seen) };
        match &**action {
            Action::Put { content, algorithm } => write!(f, "Put {}", Digest::of(*algorithm, content)),
            Action::PutManifest(push) => {
                let Push { media_type, blobs, manifests, tags, expect, .. } = push;
                write!(f, "Push {} {media_type} {blobs:?} {manifests:?} {tags:?} {expect:?}", push.digest())
            }
            action => write!(f, "{action:?}"),
        }?;
        write!(f, ": {outcome:?}")
    }
}

impl Operation {
    /// What the repository is after the operation; `None` where the client would have seen something else.
    fn follow(&self, state: &Option<Repository>) -> Option<Option<Repository>> {
        let mut state = state.clone();
        let as_seen = match &self.seen {
            Seen::Has(digest, expected) => {
                state.as_ref().is_some_and(|state| state.links.contains_key(digest)) == *expected
            }
            Seen::Call(action, outcome) => {
                // Whether the source had the blob is a question to the source.
                let mut source = Repository::default();
                if let Action::Mount { digest, .. } = &**action
                    && !matches!(outcome, Outcome::Refused(Refusal::BlobNotFound(_)))
                {
                    source.links.insert(*digest, Default::default());
                }
                apply(&mut state, action, Some(&source), 0) == *outcome
            }
        };
        as_seen.then_some(state)
    }
}

/// Searches for an order, and returns the state that the operations led to: one that is as it was found in the end.
pub fn linearize(
    start: &Option<Repository>,
    operations: &[Operation],
    is_end: impl Fn(&Option<Repository>) -> bool,
) -> Option<Option<Repository>> {
    assert!(operations.len() <= 128, "a round is short");
    let all = operations.iter().enumerate().fold(0u128, |all, (n, _)| all | 1 << n);
    let mut known = HashSet::new();
    let mut open = vec![(0u128, start.clone())];
    while let Some((done, state)) = open.pop() {
        if done == all && is_end(&state) {
            return Some(state);
        }
        let left = || operations.iter().enumerate().filter(|(n, _)| done & 1 << n == 0);
        let first_return = left().map(|(_, operation)| operation.returned).min().unwrap_or_default();
        for (n, operation) in left().filter(|(_, operation)| operation.called < first_return) {
            if let Some(next) = operation.follow(&state)
                && known.insert((done | 1 << n, next.clone()))
            {
                open.push((done | 1 << n, next));
            }
        }
    }
    None
}
