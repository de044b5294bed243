//! Why a policy was refused, and where in the document.

use std::sync::Arc;

/// Why a text is not a policy.
///
/// The message names the place as a JSON pointer (`/Statement/0/Action`) and what is expected there.
///
/// ```
/// use strongroom::policy::{Kind, Policy, PolicyProblem};
///
/// let text = r#"{"Statement": {"Effect": "allow", "Action": "ecr:*", "Resource": "*"}}"#;
/// let error = Policy::parse(text, Kind::Identity).unwrap_err();
/// assert_eq!(error.at, "/Statement/Effect");
/// assert!(matches!(error.problem, PolicyProblem::Invalid { .. }));
/// assert_eq!(error.to_string(), r#"at /Statement/Effect: "allow" is not valid: expected "Allow" or "Deny""#);
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}{problem}", if at.is_empty() { String::new() } else { format!("at {at}: ") })]
pub struct PolicyError {
    /// The place, as a JSON pointer; empty for the whole document. Names are cut to 100 characters.
    pub at: String,
    /// What is wrong there.
    pub problem: PolicyProblem,
}

/// What is wrong in a policy.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyProblem {
    /// The text is longer than the limit. Split the policy, or use wildcards for lists.
    #[error("the policy has {length} characters, and at most {limit} are allowed: shorten or split it")]
    TooLong {
        /// The length in characters, or less: a text of more than four times as many bytes as allowed is not counted.
        length: usize,
        /// The limit in characters.
        limit: usize,
    },
    /// The text is not JSON, or nested deeper than 127 levels.
    #[error("not valid JSON: {source}")]
    NotJson {
        /// The JSON parser's error, with line and column.
        source: Arc<serde_json::Error>,
    },
    /// A value has the wrong JSON type.
    #[error("expected {expected}, found {found}")]
    WrongType {
        /// What belongs here.
        expected: &'static str,
        /// The type found.
        found: &'static str,
    },
    /// A member that the policy language does not have. Element names are case-sensitive.
    #[error("unknown element {name:?}: expected one of {known}")]
    UnknownElement {
        /// The name, cut to 100 characters.
        name: String,
        /// The names that are known here.
        known: &'static str,
    },
    /// A member occurs twice; JSON readers differ in which one they take. Condition operators and keys are compared
    /// without regard to case.
    #[error("{name:?} occurs twice: keep one, with a list of values if there are several")]
    Duplicate {
        /// The name, cut to 100 characters.
        name: String,
    },
    /// A required element is missing.
    #[error("{name} is missing")]
    Missing {
        /// The element.
        name: &'static str,
    },
    /// Two elements exclude each other.
    #[error("{one} and {other} exclude each other: remove one")]
    Conflict {
        /// One of the elements.
        one: &'static str,
        /// The other one.
        other: &'static str,
    },
    /// An element that this kind of policy, or this effect, does not have.
    #[error("{name} is not allowed here: {remedy}")]
    NotAllowed {
        /// The element.
        name: &'static str,
        /// What to do instead.
        remedy: &'static str,
    },
    /// A list or object without members. It would match nothing, or everything, without saying so.
    #[error("the list is empty: name at least one value, or remove the element")]
    Empty,
    /// A text that is not what belongs here.
    #[error("{text:?} is not valid: expected {expected}")]
    Invalid {
        /// The text, cut to 100 characters.
        text: String,
        /// What belongs here.
        expected: &'static str,
    },
    /// A condition operator that the policy language does not have.
    #[error("unknown condition operator {name:?}: see the list of operators in the documentation of policies")]
    UnknownOperator {
        /// The operator, cut to 100 characters.
        name: String,
    },
}

impl PolicyProblem {
    pub(super) fn at(self, at: &str) -> PolicyError {
        PolicyError { at: at.to_owned(), problem: self }
    }

    pub(super) fn invalid(text: &str, expected: &'static str) -> Self {
        Self::Invalid { text: cut(text), expected }
    }
}

/// The text's first 100 characters.
pub(super) fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}

/// The JSON pointer of a member.
pub(super) fn member(at: &str, name: &str) -> String {
    format!("{at}/{}", cut(name).replace('~', "~0").replace('/', "~1"))
}
