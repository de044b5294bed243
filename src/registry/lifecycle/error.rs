//! Why a policy is refused.

use std::fmt;

/// Why a policy is refused: the first problem, and where it is.
///
/// Its text is the one that Amazon ECR answers with where that is known, so that a server can put it into ECR's
/// `Lifecycle policy validation failure: …`. ECR's texts rarely say where: `{:#}` does, for people.
///
/// ```
/// use strongroom::registry::lifecycle::Policy;
///
/// let error = Policy::parse(
///     r#"{"rules": [{"rulePriority": 7,
///         "selection": {"tagStatus": "tagged", "countType": "imageCountMoreThan", "countNumber": 5},
///         "action": {"type": "expire"}}]}"#,
/// )
/// .unwrap_err();
/// assert_eq!(error.to_string(), "Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.");
/// assert_eq!(
///     format!("{error:#}"),
///     "rule 1 (rulePriority 7), selection.tagStatus: \
///      Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED."
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PolicyError {
    /// The rule, as the document has it: 1 is the first one.
    pub rule: Option<usize>,
    /// The rule's priority, if that could be read.
    pub priority: Option<u32>,
    /// The member, with the names of the members around it in the rule: `selection.countType`. Empty where the problem
    /// is with the whole document, or the whole rule.
    pub member: String,
    /// What is wrong.
    pub problem: PolicyProblem,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return self.problem.fmt(f);
        }
        let mut around = false;
        if let Some(rule) = self.rule {
            write!(f, "rule {rule}")?;
            around = true;
        }
        if let Some(priority) = self.priority {
            write!(f, " (rulePriority {priority})")?;
        }
        if !self.member.is_empty() {
            write!(f, "{}{}", if around { ", " } else { "" }, self.member)?;
            around = true;
        }
        if around {
            f.write_str(": ")?;
        }
        self.problem.fmt(f)?;
        match self.problem {
            PolicyProblem::Syntax { line, column } => write!(f, " See line {line}, column {column}."),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for PolicyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        None // the problem is part of this error's text
    }
}

/// What is wrong with a policy. Texts that are quoted from it are cut to 200 characters.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyProblem {
    /// The text is too long to be looked at. Remove rules or shorten descriptions.
    #[error("the policy has {found} characters: use at most {max}")]
    TooLong {
        /// How many characters it has.
        found: usize,
        /// The most it may have.
        max: usize,
    },
    /// The text is no JSON.
    #[error("Could not map policyString into LifecyclePolicy.")]
    Syntax {
        /// Where reading ended, from 1.
        line: usize,
        /// Where reading ended, from 1.
        column: usize,
    },
    /// The text is JSON, but no object.
    #[error("Could not map policyString into LifecyclePolicy.")]
    NotAnObject,
    /// A value is of another type than its member has. `null` is a type of its own: leave the member out instead.
    #[error("instance type ({found}) does not match any allowed primitive type (allowed: [\"{expected}\"])")]
    Type {
        /// The type it must have.
        expected: &'static str,
        /// The type it has.
        found: &'static str,
    },
    /// A member is missing that must be there.
    #[error("object has missing required properties ([\"{name}\"])")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// A member has no meaning in this place.
    #[error("object instance has properties which are not allowed by the schema: ([{name:?}])")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A member is there twice. Readers differ in which one they take: keep one.
    #[error("{name:?} appears more than once in an object: keep one of them")]
    Duplicate {
        /// Its name.
        name: String,
    },
    /// A value is none of those that its member may have.
    #[error("instance value ({found:?}) not found in enum (possible values: {allowed:?})")]
    Value {
        /// The value.
        found: String,
        /// Those it may have.
        allowed: &'static [&'static str],
    },
    /// A number is too small.
    #[error("numeric instance is lower than the required minimum (minimum: {minimum}, found: {found})")]
    TooSmall {
        /// The least it may be.
        minimum: u32,
        /// What it is.
        found: i64,
    },
    /// A number is too large.
    #[error("numeric instance is greater than the required maximum (maximum: {maximum}, found: {found})")]
    TooLarge {
        /// The most it may be.
        maximum: u32,
        /// What it is.
        found: u64,
    },
    /// A list has too few elements.
    #[error("array is too short: must have at least {min} elements but instance has {found} elements")]
    TooFew {
        /// The fewest it may have.
        min: usize,
        /// How many it has.
        found: usize,
    },
    /// A list has too many elements.
    #[error("array is too long: must have at most {max} elements but instance has {found} elements")]
    TooMany {
        /// The most it may have.
        max: usize,
        /// How many it has.
        found: usize,
    },
    /// `tagStatus` is `tagged`, and no list says with which tags.
    #[error("Must specify tagPrefixList or tagPatternList when tagStatus=TAGGED.")]
    NoTagList,
    /// A member, or a value of a member, needs another one beside it.
    #[error("{with} requires {needed}: add it")]
    Requires {
        /// What is there.
        with: &'static str,
        /// What is missing.
        needed: &'static str,
    },
    /// A member, or a value of a member, does not go together with another one.
    #[error("{name} is not allowed with {with}: remove it")]
    Excludes {
        /// What must go.
        name: &'static str,
        /// What is there.
        with: &'static str,
    },
    /// A pattern is empty. To mean all images, use `tagStatus` `any`.
    #[error("a pattern must not be empty: use tagStatus any to select all images")]
    EmptyPattern,
    /// A pattern has too many wildcards.
    #[error("{pattern:?} has {found} wildcards: use at most {max}")]
    Wildcards {
        /// The pattern.
        pattern: String,
        /// How many it has.
        found: usize,
        /// The most it may have.
        max: usize,
    },
    /// Two rules have one priority.
    #[error("rulePriority {priority} is used by more than one rule: give each rule its own")]
    SamePriority {
        /// The priority.
        priority: u32,
    },
    /// Two rules of a storage class select the same tags, so that the second could never act.
    #[error("the rules with rulePriority {first} and {second} select the same tags: join them into one rule")]
    SameTags {
        /// The priority of the first.
        first: u32,
        /// The priority of the second.
        second: u32,
    },
    /// A rule for untagged images is not the only one of its storage class.
    #[error("Only one rule can select Untagged images per storage class")]
    SecondUntagged,
    /// A rule for all images is not the last one of its storage class. Give it the highest number.
    #[error("Rule for tagStatus=ANY must have the lowest priority per storage class")]
    AnyNotLast,
    /// The rule means something that Amazon ECR does not have, and that was not asked for with
    /// [`parse_extended`](super::Policy::parse_extended).
    #[error("{name} is an extension that Amazon ECR does not have: remove it, or allow extensions")]
    Extension {
        /// What it is.
        name: &'static str,
    },
}
