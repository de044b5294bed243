//! What an evaluation comes to.

use super::image::Fingerprint;
use super::policy::ActionKind;

/// What a policy does to a repository at one moment: which images are expired, and which are archived.
///
/// It says what to do and does nothing. Carry out its actions in their order, each only if its
/// [fingerprint](Action::fingerprint) is still right, and those with a [subject](Action::subject) only if the same was
/// done to that: what was used meanwhile then stays, with its signatures.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan<K> {
    /// The time that it was evaluated for: milliseconds since 1970.
    pub now_ms: u64,
    /// What to do, oldest images first, each followed by what follows it. Each image is in it once at most.
    pub actions: Vec<Action<K>>,
    /// How much that is.
    pub summary: Summary,
    /// When the youngest image of the repository was pushed. A [`Guard`](super::Guard) compares the clock with it.
    pub youngest_push_ms: Option<u64>,
}

/// What is done with one image.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Action<K> {
    /// The image.
    pub key: K,
    /// What is done.
    pub kind: ActionKind,
    /// The priority of the rule that decided, be it about the image or about its subject. `None` where the image is
    /// archived because its subject is already, by no rule of this plan.
    pub rule_priority: Option<u32>,
    /// The image that this one follows, if no rule decided about it: its subject, about which an action is earlier in
    /// this plan.
    pub subject: Option<K>,
    /// What the decision rests on.
    pub fingerprint: Fingerprint,
}

/// How much a [`Plan`] does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The images that the repository has: all that were evaluated.
    pub evaluated: usize,
    /// Those that are expired.
    pub expiring: usize,
    /// Those that are moved to the archive class.
    pub archiving: usize,
}

impl Summary {
    /// How many images something is done with.
    pub fn acting(&self) -> usize {
        self.expiring + self.archiving
    }
}
