//! Requests, decisions, and the interface between those who ask and those who decide.

use std::fmt;
use std::sync::Arc;

use super::context::Context;
use super::principal::{AccountId, Principal};

/// What is asked: may this principal do this to this resource?
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// The action, as `ecr:BatchGetImage`. Its case does not matter.
    pub action: &'a str,
    /// The resource's ARN, or `*` for actions that have none. It is text: nothing in it is a wildcard.
    pub resource: &'a str,
    /// Whose resource it is.
    pub resource_account: AccountId,
    /// The values of condition keys.
    pub context: &'a Context,
}

/// Decides about requests.
///
/// [`Policies`](super::Policies) does so by policies in Amazon's language. A program that has rules of its own, or an
/// engine for them, implements this.
///
/// ```
/// use strongroom::policy::{Authorizer, Decision, Grounds, Refusal, Request};
///
/// struct ReadOnly;
///
/// impl Authorizer for ReadOnly {
///     fn decide(&self, request: &Request<'_>) -> Decision {
///         match request.action {
///             "ecr:BatchGetImage" => Decision::Allowed(Grounds::Other("reading is free".into())),
///             _ => Decision::Denied(Refusal::Other("the registry is read-only".into())),
///         }
///     }
/// }
/// ```
pub trait Authorizer: Send + Sync {
    /// Allows or denies a request, and says why.
    fn decide(&self, request: &Request<'_>) -> Decision;
}

/// The answer to a [`Request`]. It has no default.
///
/// Its text names policies and statements. It is for logs and administrators: a caller would learn from it what exists.
#[must_use]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request is allowed.
    Allowed(Grounds),
    /// The request is denied.
    Denied(Refusal),
}

impl Decision {
    /// Whether the request is allowed.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed(_))
    }
}

/// Why a request is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Grounds {
    /// The root user asks for what its account owns, and nothing denies it.
    Root,
    /// A statement allows it.
    Statement(StatementRef),
    /// The caller's account and the resource's each allow it, as is needed across accounts.
    Both {
        /// The statement of a policy of the identity.
        identity: StatementRef,
        /// The statement of a policy of the resource.
        resource: StatementRef,
    },
    /// Another authorizer's words.
    Other(String),
}

/// Why a request is denied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A statement denies it, whatever others allow.
    Statement(StatementRef),
    /// No statement allows it.
    NoStatement,
    /// A policy of the resource allows it to another account, and no policy of the identity does.
    NoIdentityStatement {
        /// The statement that allows it.
        resource: StatementRef,
    },
    /// A policy of the identity allows it, and no policy of the resource, which another account owns, does.
    NoResourceStatement {
        /// The statement that allows it.
        identity: StatementRef,
    },
    /// A policy takes more work to decide than any real one: its patterns are built to be slow.
    TooMuchWork {
        /// Whose policy.
        side: Side,
        /// Its index.
        policy: usize,
    },
    /// A policy of one [`Kind`](super::Kind) stands among those of the other: a fault of the program, so nothing is
    /// allowed.
    Misplaced {
        /// Among whose policies it stands.
        side: Side,
        /// Its index.
        policy: usize,
    },
    /// Another authorizer's words.
    Other(String),
}

/// Whose policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Those of the identity that asks.
    Identity,
    /// Those of the resource.
    Resource,
}

/// The statement that decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementRef {
    /// Whose policy.
    pub side: Side,
    /// The policy's index among those of its side.
    pub policy: usize,
    /// The statement's index in the policy.
    pub statement: usize,
    /// The statement's `Sid`.
    pub sid: Option<Arc<str>>,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity => "identity",
            Self::Resource => "resource",
        })
    }
}

impl fmt::Display for StatementRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "statement {} of {} policy {}", self.statement, self.side, self.policy)?;
        self.sid.iter().try_for_each(|sid| write!(f, " ({sid:?})"))
    }
}

impl fmt::Display for Grounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the root user of the resource's account"),
            Self::Statement(statement) => statement.fmt(f),
            Self::Both { identity, resource } => write!(f, "{identity} and {resource}"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(statement) => statement.fmt(f),
            Self::NoStatement => f.write_str("no statement allows it"),
            Self::NoIdentityStatement { resource } => {
                write!(f, "{resource} allows it, but no policy of the caller's account does")
            }
            Self::NoResourceStatement { identity } => {
                write!(f, "{identity} allows it, but no policy of the resource, which another account owns, does")
            }
            Self::TooMuchWork { side, policy } => {
                write!(f, "{side} policy {policy} takes too much work: use fewer wildcards")
            }
            Self::Misplaced { side, policy } => write!(f, "{side} policy {policy} was parsed as one of the other kind"),
            Self::Other(words) => f.write_str(words),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Allowed(grounds) => write!(f, "allowed: {grounds}"),
            Self::Denied(refusal) => write!(f, "denied: {refusal}"),
        }
    }
}
