//! What is known of a request beside its principal, action and resource: the values of condition keys.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use super::decision::Request;
use super::principal::{Identity, IdentityKind, Principal};
use super::values::Date;

/// The values of condition keys: a map whose keys ignore case, to lists of values.
///
/// The evaluator itself knows the keys that describe the principal: `aws:PrincipalArn`, `aws:PrincipalAccount`,
/// `aws:PrincipalType`, `aws:PrincipalTag/…`, `aws:username` and `aws:userid`. What a context has under these names is
/// ignored: it can be neither forgotten nor forged.
///
/// ```
/// use std::time::SystemTime;
/// use strongroom::policy::{Context, Transport};
///
/// let context = Context::new()
///     .with_source_ip("203.0.113.7".parse()?)
///     .with_time(SystemTime::now())
///     .with_secure_transport(Transport::Encrypted)
///     .with("aws:UserAgent", "docker/27.0")
///     .with_all("aws:TagKeys", ["team", "stage"]);
/// assert_eq!(context.get("AWS:tagkeys"), ["team", "stage"]);
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Context {
    values: BTreeMap<String, Vec<String>>,
}

impl Context {
    /// Without keys.
    pub fn new() -> Self {
        Self::default()
    }

    /// With one value for a key, instead of those that it had.
    #[must_use]
    pub fn with(self, key: &str, value: impl Into<String>) -> Self {
        self.with_all(key, [value])
    }

    /// With any number of values for a key, instead of those that it had. With none, the key is missing.
    #[must_use]
    pub fn with_all<V: Into<String>>(mut self, key: &str, values: impl IntoIterator<Item = V>) -> Self {
        self.values.insert(key.to_ascii_lowercase(), values.into_iter().map(Into::into).collect());
        self
    }

    /// With the client's address: `aws:SourceIp`. An IPv4 address that was mapped to IPv6 is an IPv4 address.
    #[must_use]
    pub fn with_source_ip(self, address: IpAddr) -> Self {
        self.with("aws:SourceIp", address.to_canonical().to_string())
    }

    /// With the time: `aws:CurrentTime` and `aws:EpochTime`.
    #[must_use]
    pub fn with_time(self, time: SystemTime) -> Self {
        let date = Date::from(time);
        self.with("aws:CurrentTime", date.to_string()).with("aws:EpochTime", date.epoch_seconds().to_string())
    }

    /// With whether the connection is encrypted: `aws:SecureTransport`.
    #[must_use]
    pub fn with_secure_transport(self, transport: Transport) -> Self {
        self.with("aws:SecureTransport", if transport == Transport::Encrypted { "true" } else { "false" })
    }

    /// The values of a key; none if it is missing.
    pub fn get(&self, key: &str) -> &[String] {
        self.values.get(&key.to_ascii_lowercase()).map_or(&[], Vec::as_slice)
    }
}

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// By TLS.
    Encrypted,
    /// In plain.
    Plain,
}

/// A condition key, parsed once: in lower case, and those of the principal told apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    PrincipalArn,
    PrincipalAccount,
    PrincipalType,
    UserName,
    UserId,
    PrincipalTag(String),
    Other(String),
}

impl Key {
    /// None if the name has no prefix, as in `aws:SourceIp`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let (prefix, rest) = lower.split_once(':')?;
        if prefix.is_empty() || rest.is_empty() || lower.contains(['*', '?', '$', '{', '}', '\'']) {
            return None;
        }
        Some(match lower.as_str() {
            "aws:principalarn" => Self::PrincipalArn,
            "aws:principalaccount" => Self::PrincipalAccount,
            "aws:principaltype" => Self::PrincipalType,
            "aws:username" => Self::UserName,
            "aws:userid" => Self::UserId,
            other => match other.strip_prefix("aws:principaltag/") {
                Some(tag) => Self::PrincipalTag(tag.to_owned()),
                None => Self::Other(lower),
            },
        })
    }
}

/// The values of a key in one request.
#[derive(Clone, Copy)]
pub(super) enum Found<'a> {
    Missing,
    One(&'a str),
    Many(&'a [String]),
}

impl<'a> Found<'a> {
    pub(super) fn iter(self) -> impl Iterator<Item = &'a str> {
        let (one, many) = match self {
            Found::Missing => (None, [].as_slice()),
            Found::One(value) => (Some(value), [].as_slice()),
            Found::Many(values) => (None, values),
        };
        one.into_iter().chain(many.iter().map(String::as_str))
    }

    pub(super) fn is_missing(self) -> bool {
        self.iter().next().is_none()
    }

    /// Missing, or without a value that is not the empty text.
    pub(super) fn is_null(self) -> bool {
        self.iter().all(str::is_empty)
    }
}

/// Finds the values of keys for one request.
pub(super) struct Lookup<'a>(pub(super) &'a Request<'a>);

impl<'a> Lookup<'a> {
    pub(super) fn find(&self, key: &Key) -> Found<'a> {
        let request = self.0;
        let identity: Option<&'a Identity> = match request.principal {
            Principal::Identified(identity) => Some(identity),
            _ => None,
        };
        let one = match key {
            Key::PrincipalArn => identity.map(Identity::principal_arn),
            Key::PrincipalAccount => identity.map(Identity::account_str),
            Key::PrincipalType => principal_type(request.principal),
            Key::UserName => identity.and_then(|identity| match identity.kind() {
                IdentityKind::User { name } => Some(name.as_str()),
                _ => None,
            }),
            Key::UserId => match request.principal {
                Principal::Anonymous => Some("anonymous"),
                _ => identity.and_then(Identity::user_id),
            },
            Key::PrincipalTag(tag) => identity.and_then(|identity| identity.tag(tag)),
            Key::Other(name) => return request.context.lowercase(name),
        };
        one.map_or(Found::Missing, Found::One)
    }

    /// The value of a variable: that of a key that has exactly one.
    pub(super) fn single(&self, key: &Key) -> Option<&'a str> {
        let found = self.find(key);
        let mut values = found.iter();
        values.next().filter(|_| values.next().is_none())
    }
}

impl Context {
    fn lowercase(&self, key: &str) -> Found<'_> {
        self.values.get(key).map_or(Found::Missing, |values| Found::Many(values))
    }
}

fn principal_type(principal: &Principal) -> Option<&'static str> {
    match principal {
        Principal::Anonymous => Some("Anonymous"),
        Principal::Identified(identity) => Some(match identity.kind() {
            IdentityKind::Root => "Account",
            IdentityKind::User { .. } => "User",
            IdentityKind::RoleSession { .. } => "AssumedRole",
        }),
        Principal::Service(_) | Principal::Federated(_) => None,
    }
}
