//! Who asks, and the names by which a policy's `Principal` element knows them.

use std::fmt;
use std::str::FromStr;

use super::error::{PolicyError, PolicyProblem, cut};

/// The number of an account: 12 digits.
///
/// ```
/// use strongroom::policy::AccountId;
///
/// let account: AccountId = "123456789012".parse()?;
/// assert_eq!(account.to_string(), "123456789012");
/// assert!("12345".parse::<AccountId>().is_err());
/// # Ok::<(), strongroom::policy::InvalidPrincipal>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountId([u8; 12]);

impl AccountId {
    /// The 12 digits.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default() // they are ASCII digits
    }
}

impl FromStr for AccountId {
    type Err = InvalidPrincipal;

    fn from_str(text: &str) -> Result<Self, InvalidPrincipal> {
        let digits = text.as_bytes().try_into().ok().filter(|digits: &[u8; 12]| digits.iter().all(u8::is_ascii_digit));
        digits.map(Self).ok_or_else(|| InvalidPrincipal { text: cut(text), expected: "an account: 12 digits" })
    }
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountId({})", self.as_str())
    }
}

/// A text that can't be the name of an account, a user, a role or a session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not valid: expected {expected}")]
pub struct InvalidPrincipal {
    /// The text, cut to 100 characters.
    pub text: String,
    /// What is expected.
    pub expected: &'static str,
}

/// Who makes a request, as authenticated by the caller of the evaluator.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Principal {
    /// Nobody in particular: a request without credentials.
    Anonymous,
    /// An identity of an account.
    Identified(Identity),
    /// A service, by its name: `replication.ecr.amazonaws.com`. Only resource policies can allow it.
    Service(String),
    /// A web identity or SAML provider's user, by the provider's name. Only resource policies can allow it.
    Federated(String),
}

impl From<Identity> for Principal {
    fn from(identity: Identity) -> Self {
        Self::Identified(identity)
    }
}

/// What an [`Identity`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum IdentityKind {
    /// The root user of the account.
    Root,
    /// A user.
    User {
        /// Without the path.
        name: String,
    },
    /// A session of a role.
    RoleSession {
        /// The role's ARN, with its path.
        role_arn: String,
    },
}

/// A root user, a user or a session of a role.
///
/// ```
/// use strongroom::policy::Identity;
///
/// let account = "123456789012".parse()?;
/// let alice = Identity::user(account, "builders/alice")?.with_tag("team", "storage");
/// assert_eq!(alice.arn(), "arn:aws:iam::123456789012:user/builders/alice");
/// let deploy = Identity::role_session(account, "deploy", "run-17")?;
/// assert_eq!(deploy.arn(), "arn:aws:sts::123456789012:assumed-role/deploy/run-17");
/// # Ok::<(), strongroom::policy::InvalidPrincipal>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    arn: String,
    account: AccountId,
    kind: IdentityKind,
    user_id: Option<String>,
    tags: Vec<(String, String)>,
}

impl Identity {
    /// The root user of an account. It may do everything in its account that no policy denies.
    pub fn root(account: AccountId) -> Self {
        let user_id = Some(account.to_string());
        Self { arn: root_arn(account), account, kind: IdentityKind::Root, user_id, tags: Vec::new() }
    }

    /// A user, with or without a path before the name: `alice`, `builders/alice`.
    pub fn user(account: AccountId, name: &str) -> Result<Self, InvalidPrincipal> {
        let last = checked(name, "a user's name of letters, digits and _+=,.@-, with a path before it or none")?;
        let kind = IdentityKind::User { name: last.to_owned() };
        Ok(Self { arn: format!("arn:aws:iam::{account}:user/{name}"), account, kind, user_id: None, tags: Vec::new() })
    }

    /// A session of a role, whose name may have a path. Policies know it by the role's ARN and by its own.
    pub fn role_session(account: AccountId, role: &str, session: &str) -> Result<Self, InvalidPrincipal> {
        let last = checked(role, "a role's name of letters, digits and _+=,.@-, with a path before it or none")?;
        let expected = "a session's name of letters, digits and _+=,.@-";
        if checked(session, expected)? != session {
            return Err(InvalidPrincipal { text: cut(session), expected });
        }
        let arn = format!("arn:aws:sts::{account}:assumed-role/{last}/{session}");
        let kind = IdentityKind::RoleSession { role_arn: format!("arn:aws:iam::{account}:role/{role}") };
        Ok(Self { arn, account, kind, user_id: None, tags: Vec::new() })
    }

    /// Sets the value of `aws:userid`: a user's unique id, or a role's with `:` and the session's name. Without it the
    /// key is missing, but for the root user, whose id is the account's number.
    #[must_use]
    pub fn with_user_id(mut self, id: impl Into<String>) -> Self {
        self.user_id = Some(id.into());
        self
    }

    /// Sets a tag: `aws:PrincipalTag/…`. A tag whose key differs in case only is replaced.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        let key = key.into();
        self.tags.retain(|(other, _)| !other.eq_ignore_ascii_case(&key));
        self.tags.push((key, value.into()));
        self
    }

    /// The ARN: a session's own, not its role's.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The account that it belongs to.
    pub fn account(&self) -> AccountId {
        self.account
    }

    /// What it is.
    pub fn kind(&self) -> &IdentityKind {
        &self.kind
    }

    /// The value of `aws:userid`.
    pub fn user_id(&self) -> Option<&str> {
        self.user_id.as_deref()
    }

    /// The value of `aws:PrincipalTag/…`; the key's case does not matter.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str())
    }

    pub(super) fn account_str(&self) -> &str {
        self.account.as_str()
    }

    /// The value of `aws:PrincipalArn`: the role's ARN for a session.
    pub(super) fn principal_arn(&self) -> &str {
        match &self.kind {
            IdentityKind::RoleSession { role_arn } => role_arn,
            _ => &self.arn,
        }
    }
}

fn root_arn(account: AccountId) -> String {
    format!("arn:aws:iam::{account}:root")
}

/// The last part of a name whose parts are all well-formed.
fn checked<'a>(name: &'a str, expected: &'static str) -> Result<&'a str, InvalidPrincipal> {
    let is_part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte))
    };
    if name.len() > 1024 || !name.split('/').all(is_part) {
        return Err(InvalidPrincipal { text: cut(name), expected });
    }
    Ok(name.rsplit('/').next().unwrap_or(name))
}

/// One name in a `Principal` or `NotPrincipal` element.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PrincipalName {
    /// `*`, everyone, also anonymous.
    Anyone,
    /// All principals of an account.
    Account(AccountId),
    /// A user, a role or a session.
    Arn(String),
    Service(String),
    Federated(String),
}

impl PrincipalName {
    /// A value of `{"AWS": …}`.
    pub(super) fn parse_aws(text: &str, at: &str) -> Result<Self, PolicyError> {
        const EXPECTED: &str = "\"*\", an account's 12 digits, or the ARN of an account's root, a user, a role or a \
                                session of one, without wildcards: conditions on aws:PrincipalArn can have them";
        let invalid = || PolicyProblem::invalid(text, EXPECTED).at(at);
        if text == "*" {
            return Ok(Self::Anyone);
        }
        if let Ok(account) = text.parse() {
            return Ok(Self::Account(account));
        }
        let parts: Vec<&str> = text.split(':').collect();
        let &[arn, partition, service, region, account, name] = &*parts else { return Err(invalid()) };
        let account = account.parse().map_err(|_| invalid())?;
        if arn != "arn" || !partition.starts_with("aws") || !region.is_empty() || text.contains(['*', '?', '$']) {
            return Err(invalid());
        }
        let (kind, rest) = name.split_once('/').unwrap_or((name, ""));
        let is_named = match (service, kind) {
            ("iam", "root") if name == "root" => return Ok(Self::Account(account)),
            ("iam", "user" | "role") => rest.split('/').all(|part| !part.is_empty()),
            ("sts", "federated-user") => !rest.is_empty(),
            ("sts", "assumed-role") => rest.split('/').count() == 2 && rest.split('/').all(|part| !part.is_empty()),
            _ => false,
        };
        if is_named { Ok(Self::Arn(text.to_owned())) } else { Err(invalid()) }
    }

    /// Whether a principal is meant by a `Principal` element with this name.
    pub(super) fn includes(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Anyone, _) => true,
            (Self::Account(account), Principal::Identified(identity)) => *account == identity.account,
            (Self::Arn(arn), Principal::Identified(identity)) => {
                *arn == identity.arn || arn == identity.principal_arn()
            }
            (Self::Service(name), Principal::Service(service)) => name == service,
            (Self::Federated(name), Principal::Federated(provider)) => name == provider,
            _ => false,
        }
    }
}

/// Whether a `NotPrincipal` element with these names excepts a principal.
///
/// A user is two principals, the account and the user; a session of a role is three. AWS excepts a request only if all
/// of them are listed, and so asks to list the account beside a user.
pub(super) fn excepts(names: &[PrincipalName], principal: &Principal) -> bool {
    match principal {
        Principal::Identified(identity) => {
            let has_arn =
                |arn: &str| names.iter().any(|name| matches!(name, PrincipalName::Arn(other) if other == arn));
            names.contains(&PrincipalName::Account(identity.account))
                && match &identity.kind {
                    IdentityKind::Root => true,
                    IdentityKind::User { .. } => has_arn(&identity.arn),
                    IdentityKind::RoleSession { role_arn } => has_arn(&identity.arn) && has_arn(role_arn),
                }
        }
        other => names.iter().any(|name| name.includes(other)),
    }
}
