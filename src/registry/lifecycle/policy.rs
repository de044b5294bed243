//! The policy: its rules, as a caller reads them.

use std::fmt;

use crate::oci::wildcard;
pub use crate::registry::StorageClass;

use super::error::PolicyError;
use super::parse::{self, Dialect};

/// The most rules of a policy.
pub const MAX_RULES: usize = 50;

/// The most characters of a policy's text. Longer ones are refused.
pub const MAX_TEXT_LEN: usize = 30_720;

/// The fewest characters that Amazon ECR's `PutLifecyclePolicy` takes. [`Policy::parse`] takes shorter texts, such as
/// files: the bound is for an API to check.
pub const MIN_TEXT_LEN: usize = 100;

/// The most wildcards of a tag pattern.
pub const MAX_WILDCARDS: usize = 4;

/// The fewest days for which an image stays archived before a rule may expire it.
pub const MIN_ARCHIVED_DAYS: u32 = 90;

/// The most that `countNumber` and `rulePriority` may be: what a 32-bit integer holds.
pub const MAX_NUMBER: u32 = i32::MAX.unsigned_abs();

/// A lifecycle policy: at least one rule, in the order of their priorities.
///
/// ```
/// use strongroom::registry::lifecycle::{ActionKind, Limit, Policy, TagSelection};
///
/// let policy = Policy::parse(
///     r#"{"rules": [{"rulePriority": 1,
///         "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 5},
///         "action": {"type": "expire"}}]}"#,
/// )?;
/// let [rule] = policy.rules() else { unreachable!() };
/// assert_eq!((&rule.selection.tags, rule.selection.limit), (&TagSelection::Untagged, Limit::Newest(5)));
/// assert_eq!(rule.action, ActionKind::Expire);
/// # Ok::<(), strongroom::registry::lifecycle::PolicyError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Parses a policy as Amazon ECR does: what ECR refuses is refused, [extensions](super#extensions) included.
    ///
    /// # Errors
    /// [`PolicyError`], which says in which rule and member the first problem is.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text, Dialect::Ecr)
    }

    /// Parses a policy that may use the [extensions](super#extensions). Every policy of ECR is one of these too, and
    /// means the same.
    ///
    /// ```
    /// use strongroom::registry::lifecycle::{Policy, PolicyProblem};
    ///
    /// let text = r#"{"rules": [{"rulePriority": 1,
    ///     "selection": {"tagStatus": "any", "countType": "sinceImagePulled", "countUnit": "days", "countNumber": 30},
    ///     "action": {"type": "expire"}}]}"#;
    /// assert!(Policy::parse_extended(text).is_ok());
    /// assert!(matches!(Policy::parse(text).unwrap_err().problem, PolicyProblem::Extension { .. }));
    /// ```
    ///
    /// # Errors
    /// [`PolicyError`], which says in which rule and member the first problem is.
    pub fn parse_extended(text: &str) -> Result<Self, PolicyError> {
        parse::policy(text, Dialect::Extended)
    }

    /// Its rules, the one with the highest priority, which has the lowest number, first.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Rules that were checked, in any order.
    pub(super) fn of(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| rule.priority);
        Self { rules }
    }
}

/// One rule of a [`Policy`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rule {
    /// `rulePriority`, unique in the policy: the lowest number goes first.
    pub priority: u32,
    /// `description`: for people.
    pub description: Option<String>,
    /// `selection`: which images the rule is for.
    pub selection: Selection,
    /// `action`: what happens to those it marks.
    pub action: ActionKind,
}

/// Which images a [`Rule`] identifies, and which of those it marks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// `storageClass`: only images of this class are identified.
    pub class: StorageClass,
    /// `tagStatus` and its list: only images with such tags are identified.
    pub tags: TagSelection,
    /// `artifactTypeList`, an [extension](super#extensions): where there is one, only manifests whose artifact type
    /// any of these patterns matches are identified.
    pub artifact_types: Vec<Pattern>,
    /// `countType` and `countNumber`: which of those identified are left.
    pub limit: Limit,
    /// `signOfLife`, an [extension](super#extensions): what makes an image young again.
    pub sign_of_life: SignOfLife,
}

/// Images with which tags a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TagSelection {
    /// All images.
    Any,
    /// Images without a tag.
    Untagged,
    /// Images of whose tags each of these patterns matches at least one. There is at least one pattern.
    Tagged(Vec<Pattern>),
}

/// What a rule leaves. Age is counted in days of 86,400 seconds, and an image of exactly so many days is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `imageCountMoreThan`: the youngest so many are left.
    Newest(u32),
    /// `sinceImagePushed`: what was pushed, or restored, within so many days is left.
    Pushed {
        /// The days.
        days: u32,
    },
    /// `sinceImagePulled`: what was pulled, pushed or restored within so many days is left.
    Pulled {
        /// The days.
        days: u32,
    },
    /// `sinceImageTransitioned`: what was archived within so many days is left.
    Archived {
        /// The days, at least [`MIN_ARCHIVED_DAYS`].
        days: u32,
    },
}

/// What makes an image young again, besides what its rule's [`Limit`] counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignOfLife {
    /// Nothing: Amazon ECR's rules.
    #[default]
    None,
    /// Setting a tag to it.
    Tag,
}

/// What is done with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ActionKind {
    /// `transition` to `archive`: it is moved to the archive class, from where it can be restored.
    Archive,
    /// `expire`: it is deleted.
    Expire,
}

/// A text in which `*` stands for any text, also none: a tag pattern, or the type of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern {
    text: String,
    /// How long it is up to its first `*`, if it has one.
    literal: Option<usize>,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), literal: text.find('*') }
    }

    /// What begins with this.
    pub(super) fn prefix(text: &str) -> Self {
        Self::new(&format!("{text}*"))
    }

    /// Whether it means this text.
    pub fn matches(&self, text: &str) -> bool {
        // Nearly all tags differ from nearly all patterns at their beginning.
        match self.literal {
            None => self.text == text,
            Some(literal) => {
                self.text.as_bytes().get(..literal).is_some_and(|literal| text.as_bytes().starts_with(literal))
                    && wildcard::matches(&self.text, text)
            }
        }
    }

    /// Its text. That of a `tagPrefixList` ends with a `*`.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
