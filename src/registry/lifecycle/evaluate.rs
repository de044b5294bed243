//! Evaluation: which rule identifies an image, which marks it, and which mark counts.
//!
//! Each image is folded to a [`Record`] when it comes: a bit for each rule that identifies it, and one for each rule by
//! age that marks it. Rules by count need all images, so they mark at the end, each by one selection of the youngest.
//! Since a rule that identifies an image keeps all rules of lower priority from acting on it, one rule decides about
//! an image: the first that identifies it.

use super::follow::Followers;
use super::image::{Fingerprint, Image, ImageStatus, Parent};
use super::plan::{Action, Plan, Summary};
use super::policy::{ActionKind, Limit, Policy, Rule, SignOfLife, StorageClass, TagSelection};

/// A day, as rules count them.
pub(super) const DAY_MS: u64 = 86_400_000;

/// An evaluation in the making: it takes the images of a repository one by one, in any order. Of each it keeps its key,
/// that of its subject, and 56 bytes; its tags are not kept. The result depends on nothing but the policy, the time and
/// the images.
///
/// ```
/// use strongroom::registry::lifecycle::{Evaluation, Image, Policy};
///
/// # let policy = Policy::parse(
/// #     r#"{"rules": [{"rulePriority": 1,
/// #         "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 1},
/// #         "action": {"type": "expire"}}]}"#,
/// # )?;
/// let mut evaluation = Evaluation::new(&policy, 1_000);
/// evaluation.add(Image::new("a", 3), &["v1"]);
/// evaluation.add(Image::new("b", 2), &[""; 0]);
/// evaluation.add(Image::new("c", 1), &[""; 0]);
/// let plan = evaluation.finish();
/// assert_eq!(plan.actions.iter().map(|action| action.key).collect::<Vec<_>>(), ["c"]);
/// # Ok::<(), strongroom::registry::lifecycle::PolicyError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Evaluation<'p, K> {
    rules: &'p [Rule],
    now_ms: u64,
    records: Vec<Record<K>>,
    /// The subjects of records, by the records' numbers, which ascend.
    subjects: Vec<(usize, K)>,
    youngest_push_ms: Option<u64>,
}

/// What is kept of an image.
#[derive(Clone, Debug)]
pub(super) struct Record<K> {
    pub(super) key: K,
    /// When it was pushed, restored or archived: what images are ordered and ranked by.
    pub(super) since_ms: u64,
    /// When it was tagged last, or 0.
    tagged_ms: u64,
    /// The rules that identify it, as bits: the first rule is the lowest.
    identified: Bits,
    /// Those of them that mark it.
    marked: Bits,
    fingerprint: Fingerprint,
    pub(super) status: ImageStatus,
    pub(super) parent: Parent,
}

/// A set of rules. A policy has at most 50.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bits(u64);

impl Bits {
    fn one(rule: usize) -> Self {
        Self(u32::try_from(rule).ok().and_then(|rule| 1_u64.checked_shl(rule)).unwrap_or(0))
    }

    fn has(self, rule: usize) -> bool {
        self.0 & Self::one(rule).0 != 0
    }

    fn insert(&mut self, rule: usize) {
        self.0 |= Self::one(rule).0;
    }

    fn first(self) -> Option<usize> {
        (self.0 != 0).then(|| usize::try_from(self.0.trailing_zeros()).ok()).flatten()
    }
}

/// What is done with an image, before it is put into a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) kind: ActionKind,
    pub(super) rule_priority: Option<u32>,
    /// The record that the decision was made about first: itself, or the subject that it follows.
    pub(super) root: usize,
    /// How many subjects are between.
    pub(super) depth: usize,
    /// The record that it follows.
    pub(super) subject: Option<usize>,
}

impl<'p, K: Ord + Clone> Evaluation<'p, K> {
    /// Begins, for a time in milliseconds since 1970.
    pub fn new(policy: &'p Policy, now_ms: u64) -> Self {
        let rules = policy.rules();
        Self { rules, now_ms, records: Vec::new(), subjects: Vec::new(), youngest_push_ms: None }
    }

    /// Takes an image and its tags. Each image of the repository is to be given once, also those that no rule is for:
    /// artifacts follow them.
    ///
    /// The cost is one pass over the tags for each pattern, until a pattern of the rule matches none.
    pub fn add(&mut self, image: Image<'_, K>, tags: &[impl AsRef<str>]) {
        let (mut identified, mut marked) = (Bits::default(), Bits::default());
        if image.parent == Parent::None {
            for (at, rule) in self.rules.iter().enumerate() {
                if identifies(rule, &image, tags) {
                    identified.insert(at);
                    if marks_by_age(rule, &image, self.now_ms) {
                        marked.insert(at);
                    }
                }
            }
        }
        self.youngest_push_ms = self.youngest_push_ms.max(Some(image.pushed_ms));
        let record = Record {
            since_ms: image.since_ms(),
            tagged_ms: image.tagged_ms.unwrap_or(0),
            identified,
            marked,
            fingerprint: Fingerprint::of(&image, tags),
            status: image.status,
            parent: image.parent,
            key: image.key,
        };
        if let Some(subject) = image.subject {
            self.subjects.push((self.records.len(), subject));
        }
        self.records.push(record);
    }

    /// Decides.
    pub fn finish(mut self) -> Plan<K> {
        let followers = Followers::find(&self.records, &self.subjects);
        self.leave_to_subjects(&followers);
        for (at, rule) in self.rules.iter().enumerate() {
            if let Limit::Newest(count) = rule.selection.limit {
                self.mark_by_count(at, usize::try_from(count).unwrap_or(usize::MAX), rule.selection.sign_of_life);
            }
        }
        let own = |at| self.own_decision(at);
        let mut decisions = followers.decide(&self.records, own);
        for at in 0..self.records.len() {
            if !followers.has(at) {
                decisions.extend(own(at).map(|decision| (at, decision)));
            }
        }
        self.into_plan(decisions)
    }

    /// Followers are no images of their own, except to rules that are for artifacts.
    fn leave_to_subjects(&mut self, followers: &Followers) {
        let mut artifacts = Bits::default();
        for (at, rule) in self.rules.iter().enumerate() {
            if !rule.selection.artifact_types.is_empty() {
                artifacts.insert(at);
            }
        }
        for follower in followers.numbers() {
            if let Some(record) = self.records.get_mut(follower) {
                record.identified.0 &= artifacts.0;
                record.marked.0 &= artifacts.0;
            }
        }
    }

    /// Marks all that a rule identifies but for the youngest.
    fn mark_by_count(&mut self, rule: usize, count: usize, sign_of_life: SignOfLife) {
        let numbers = self.records.iter().enumerate().filter(|(_, record)| record.identified.has(rule));
        let mut numbers: Vec<usize> = numbers.map(|(at, _)| at).collect();
        if numbers.len() <= count {
            return;
        }
        let records = &self.records;
        numbers.select_nth_unstable_by(count, |a, b| {
            let [a, b] = [a, b].map(|at| records.get(*at).map(|record| (record.rank_ms(sign_of_life), &record.key)));
            b.cmp(&a)
        });
        for at in numbers.into_iter().skip(count) {
            if let Some(record) = self.records.get_mut(at) {
                record.marked.insert(rule);
            }
        }
    }

    /// What the rules say about a record.
    fn own_decision(&self, at: usize) -> Option<Decision> {
        let record = self.records.get(at)?;
        let first = record.identified.first().filter(|first| record.marked.has(*first))?;
        let rule = self.rules.get(first)?;
        Some(Decision { kind: rule.action, rule_priority: Some(rule.priority), root: at, depth: 0, subject: None })
    }

    fn into_plan(self, mut decisions: Vec<(usize, Decision)>) -> Plan<K> {
        let age = |at: usize| self.records.get(at).map(|record| (record.since_ms, &record.key));
        decisions.sort_by(|(a, left), (b, right)| {
            let [left, right] = [(*a, left), (*b, right)]
                .map(|(at, decision)| (age(decision.root), decision.root, decision.depth, age(at), at));
            left.cmp(&right)
        });
        let mut summary = Summary { evaluated: self.records.len(), ..Summary::default() };
        let mut actions = Vec::with_capacity(decisions.len());
        for (at, decision) in decisions {
            let Some(record) = self.records.get(at) else { continue };
            match decision.kind {
                ActionKind::Expire => summary.expiring += 1,
                ActionKind::Archive => summary.archiving += 1,
            }
            actions.push(Action {
                key: record.key.clone(),
                kind: decision.kind,
                rule_priority: decision.rule_priority,
                subject: decision.subject.and_then(|at| self.records.get(at)).map(|subject| subject.key.clone()),
                fingerprint: record.fingerprint,
            });
        }
        Plan { now_ms: self.now_ms, actions, summary, youngest_push_ms: self.youngest_push_ms }
    }
}

impl<K> Record<K> {
    /// What rules by count rank it by.
    fn rank_ms(&self, sign_of_life: SignOfLife) -> u64 {
        match sign_of_life {
            SignOfLife::None => self.since_ms,
            SignOfLife::Tag => self.since_ms.max(self.tagged_ms),
        }
    }
}

/// Evaluates a policy on images that are at hand, each with its tags: an [`Evaluation`] in one call.
pub fn evaluate<'a, K: Ord + Clone, T: AsRef<str>, L: AsRef<[T]>>(
    policy: &Policy,
    now_ms: u64,
    images: impl IntoIterator<Item = (Image<'a, K>, L)>,
) -> Plan<K> {
    let mut evaluation = Evaluation::new(policy, now_ms);
    images.into_iter().for_each(|(image, tags)| evaluation.add(image, tags.as_ref()));
    evaluation.finish()
}

/// Whether a rule is for an image.
fn identifies<K>(rule: &Rule, image: &Image<'_, K>, tags: &[impl AsRef<str>]) -> bool {
    let selection = &rule.selection;
    let class = match image.status {
        ImageStatus::Active => StorageClass::Standard,
        ImageStatus::Archived => StorageClass::Archive,
        ImageStatus::Activating => return false,
    };
    let types = &selection.artifact_types;
    class == selection.class
        && (types.is_empty() || image.artifact_type.is_some_and(|kind| types.iter().any(|type_| type_.matches(kind))))
        && match &selection.tags {
            TagSelection::Any => true,
            TagSelection::Untagged => tags.is_empty(),
            TagSelection::Tagged(patterns) => {
                patterns.iter().all(|pattern| tags.iter().any(|tag| pattern.matches(tag.as_ref())))
            }
        }
}

/// Whether a rule that identifies an image marks it for its age. An unknown age is none.
fn marks_by_age<K>(rule: &Rule, image: &Image<'_, K>, now_ms: u64) -> bool {
    let (since, days) = match rule.selection.limit {
        Limit::Newest(_) => return false,
        Limit::Pushed { days } => (Some(image.stored_ms()), days),
        Limit::Pulled { days } => (Some(image.used_ms()), days),
        Limit::Archived { days } => (image.archived_ms, days),
    };
    let tagged = match rule.selection.sign_of_life {
        SignOfLife::None => 0,
        SignOfLife::Tag => image.tagged_ms.unwrap_or(0),
    };
    // Exactly so many days are not more: an image that was pushed a day ago survives "older than one day".
    since.is_some_and(|since| now_ms.saturating_sub(since.max(tagged)) > u64::from(days) * DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::Record;

    #[test]
    fn of_an_image_its_key_and_little_more_is_kept() {
        assert!(size_of::<Record<()>>() <= 56, "{}", size_of::<Record<()>>());
    }
}
