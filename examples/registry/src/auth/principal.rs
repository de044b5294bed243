//! Who asks.

use std::sync::Arc;

use ring::digest::{SHA256, digest};
use strongroom::policy::{self, Policy, Principal};

use super::random::LETTERS;

/// Who asks.
#[derive(Clone, Debug)]
pub enum Identity {
    /// Anybody, of a registry without credentials: they may do everything.
    Open,
    /// Somebody without credentials, of a registry that has some.
    Anonymous,
    /// Somebody whose key signed the request, or to whom its token was given.
    Principal(Arc<Known>),
}

/// Somebody whom the credentials know: a user, a root user or a session of a role, by one of its keys.
#[derive(Clone, Debug)]
pub struct Known {
    /// As the evaluation of policies takes it, with its tags.
    pub principal: Principal,
    /// Its own policies, and those of its groups.
    pub policies: Arc<[Arc<Policy>]>,
    /// The key that signed the request, or by which the token was asked for.
    pub access_key_id: String,
    who: policy::Identity,
}

impl Known {
    pub(super) fn new(who: policy::Identity, policies: Arc<[Arc<Policy>]>, access_key_id: &str) -> Self {
        let principal = Principal::Identified(who.clone());
        Self { principal, policies, access_key_id: access_key_id.to_owned(), who }
    }

    /// The ARN: a session's own, not its role's.
    pub fn arn(&self) -> &str {
        self.who.arn()
    }

    /// The ARN by which policies and exclusions know it: of a session its role's.
    pub fn policy_arn(&self) -> &str {
        match self.who.kind() {
            policy::IdentityKind::RoleSession { role_arn } => role_arn,
            _ => self.arn(),
        }
    }

    /// The account that it belongs to.
    pub fn account(&self) -> policy::AccountId {
        self.who.account()
    }

    /// The unique id, as STS and the policy key `aws:userid` have it.
    pub fn user_id(&self) -> &str {
        self.who.user_id().unwrap_or_default()
    }
}

impl Identity {
    /// The account that it belongs to, if it belongs to one.
    pub fn account(&self) -> Option<policy::AccountId> {
        match self {
            Self::Principal(known) => Some(known.account()),
            Self::Open | Self::Anonymous => None,
        }
    }

    /// The ARN, or what stands for one in messages.
    pub fn arn(&self) -> &str {
        match self {
            Self::Open | Self::Anonymous => "anonymous",
            Self::Principal(known) => known.arn(),
        }
    }
}

/// What kind of id is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdKind {
    User,
    Role,
}

/// The unique id of a user or a role: always the same for one name in one account.
pub fn unique_id(kind: IdKind, account: &str, name: &str) -> String {
    let prefix = match kind {
        IdKind::User => "AIDA",
        IdKind::Role => "AROA",
    };
    let hash = digest(&SHA256, format!("{prefix}\n{account}\n{name}").as_bytes());
    let letters = hash.as_ref().iter().take(17).filter_map(|byte| LETTERS.get(usize::from(byte % 32)));
    prefix.chars().chain(letters.map(|letter| char::from(*letter))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_ids_differ_by_kind_account_and_name() {
        let ids = [
            unique_id(IdKind::User, "123456789012", "a"),
            unique_id(IdKind::User, "123456789012", "b"),
            unique_id(IdKind::User, "210987654321", "a"),
            unique_id(IdKind::Role, "123456789012", "a"),
        ];
        let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
        assert_eq!(distinct.len(), 4);
        assert!(ids.iter().all(|id| id.len() == 21), "{ids:?}");
        assert_eq!(ids[0], unique_id(IdKind::User, "123456789012", "a"));
    }
}
