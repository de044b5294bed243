//! From what the credentials file says to keys and principals, or to what is wrong with it, and where.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;
use strongroom::policy::{self, AccountId, Kind, Policy};

use super::credentials::file::CredentialsError;
use super::credentials::managed::{managed, names};
use super::credentials::{AccessKey, Document, PolicyRef, Status};
use super::directory::{Key, Keys, Principals};
use super::principal::{IdKind, Known, unique_id};

/// A directory that is being made.
pub(super) struct Resolving<'a> {
    document: &'a Document,
    policies: BTreeMap<&'a str, Arc<Policy>>,
    groups: BTreeMap<(&'a str, &'a str), Vec<Arc<Policy>>>,
    keys: Keys,
    arns: Principals,
}

pub(super) type Resolved<T> = Result<T, CredentialsError>;

impl<'a> Resolving<'a> {
    fn new(document: &'a Document) -> Resolved<Self> {
        let (policies, groups, keys, arns) = Default::default();
        account("account", &document.account)?;
        for (place, value) in [("region", &document.region), ("publicAlias", &document.public_alias)] {
            let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if !(2..=50).contains(&value.len()) || !value.bytes().all(is_name) {
                let problem = format!("{value:?} is no name of 2 to 50 lower-case letters, digits and hyphens");
                return Err(CredentialsError::invalid(place, problem));
            }
        }
        Ok(Self { document, policies, groups, keys, arns })
    }

    /// What a document says: keys and principals.
    pub(super) fn resolve(document: &'a Document) -> Resolved<(Keys, Principals)> {
        let mut resolving = Self::new(document)?;
        resolving.policies_and_groups()?;
        resolving.accounts()?;
        resolving.users()?;
        resolving.roles()?;
        Ok((resolving.keys, resolving.arns))
    }

    fn policies_and_groups(&mut self) -> Resolved<()> {
        let document = self.document;
        for (name, text) in &document.policies {
            let place = format!("policies.{name}");
            if managed(name).is_some() {
                return Err(CredentialsError::invalid(place, "a managed policy has this name: take another one"));
            }
            self.policies.insert(name, inline(&place, text)?);
        }
        for (at, group) in document.groups.iter().enumerate() {
            let place = format!("groups[{at}]");
            name(&place, &group.name)?;
            let policies = self.referred(&place, &group.policies)?;
            let of = document.account_of(&group.account);
            account(&format!("{place}.account"), of)?;
            if self.groups.insert((of, &group.name), policies).is_some() {
                return Err(CredentialsError::invalid(place, format!("there is another group {:?}", group.name)));
            }
        }
        Ok(())
    }

    /// The root users.
    fn accounts(&mut self) -> Resolved<()> {
        for (number, entry) in &self.document.accounts {
            let place = format!("accounts.{number}");
            let root = policy::Identity::root(account(&place, number)?);
            self.access_keys(&place, &root, &Arc::from([]), &entry.access_keys)?;
        }
        Ok(())
    }

    fn users(&mut self) -> Resolved<()> {
        let mut seen = BTreeSet::new();
        for (at, user) in self.document.users.iter().enumerate() {
            let place = format!("users[{at}]");
            name(&place, &user.name)?;
            let of = self.document.account_of(&user.account);
            let id = account(&format!("{place}.account"), of)?;
            // AWS has no two users whose names differ in case alone.
            if !seen.insert((of, user.name.to_ascii_lowercase())) {
                return Err(CredentialsError::invalid(place, format!("there is another user {:?}", user.name)));
            }
            let mut policies = self.referred(&place, &user.policies)?;
            for group in &user.groups {
                let found = self.groups.get(&(of, group.as_str())).ok_or_else(|| {
                    CredentialsError::invalid(format!("{place}.groups"), format!("there is no group {group:?} in {of}"))
                })?;
                policies.extend(found.iter().cloned());
            }
            let who = policy::Identity::user(id, &user.name).map_err(|error| invalid(&place, &error))?;
            let who = who.with_user_id(unique_id(IdKind::User, of, &user.name));
            let who = user.tags.iter().fold(who, |who, (key, value)| who.with_tag(key, value));
            self.access_keys(&place, &who, &policies.into(), &user.access_keys)?;
        }
        Ok(())
    }

    fn roles(&mut self) -> Resolved<()> {
        let mut seen = BTreeSet::new();
        for (at, role) in self.document.roles.iter().enumerate() {
            let place = format!("roles[{at}]");
            name(&place, &role.name)?;
            let of = self.document.account_of(&role.account);
            let id = account(&format!("{place}.account"), of)?;
            if !seen.insert((of, role.name.to_ascii_lowercase())) {
                return Err(CredentialsError::invalid(place, format!("there is another role {:?}", role.name)));
            }
            let policies: Arc<[_]> = self.referred(&place, &role.policies)?.into();
            for (at, session) in role.sessions.iter().enumerate() {
                let place = format!("{place}.sessions[{at}]");
                name(&place, &session.name)?;
                let who = policy::Identity::role_session(id, &role.name, &session.name);
                let who = who.map_err(|error| invalid(&place, &error))?;
                let role_id = unique_id(IdKind::Role, of, &role.name);
                let who = who.with_user_id(format!("{role_id}:{}", session.name));
                let who = role.tags.iter().fold(who, |who, (key, value)| who.with_tag(key, value));
                let expires = session.expires.as_deref().map(humantime::parse_rfc3339).transpose();
                let expires = expires.map_err(|_| {
                    let problem = "it is no time such as 2027-01-01T00:00:00Z";
                    CredentialsError::invalid(format!("{place}.expires"), problem)
                })?;
                let (secret, token) = (session.secret.clone(), session.token.clone());
                let principal = Arc::new(Known::new(who, Arc::clone(&policies), &session.id));
                self.key(&place, &session.id, Key { secret, token, expires, principal })?;
            }
        }
        Ok(())
    }

    fn access_keys(
        &mut self,
        place: &str,
        who: &policy::Identity,
        policies: &Arc<[Arc<Policy>]>,
        keys: &[AccessKey],
    ) -> Resolved<()> {
        for (at, key) in keys.iter().enumerate() {
            let place = format!("{place}.accessKeys[{at}]");
            let principal = Arc::new(Known::new(who.clone(), Arc::clone(policies), &key.id));
            let usable = Key { secret: key.secret.clone(), token: None, expires: None, principal };
            let is_active = key.status == Status::Active;
            self.checked(&place, &key.id, &usable)?;
            if is_active {
                self.key(&place, &key.id, usable)?;
            }
        }
        Ok(())
    }

    fn checked(&self, place: &str, id: &str, key: &Key) -> Resolved<()> {
        let is_id = (3..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let problem = if !is_id {
            "an id of a key is 3 to 128 letters and digits"
        } else if key.secret.expose().len() < 8 {
            "a secret has at least 8 characters"
        } else if key.token.as_ref().is_some_and(|token| token.expose().is_empty()) {
            "a token that is empty can't be sent: leave it out"
        } else if self.keys.contains_key(id) {
            "another key has the same id"
        } else {
            return Ok(());
        };
        Err(CredentialsError::invalid(place, problem))
    }

    fn key(&mut self, place: &str, id: &str, key: Key) -> Resolved<()> {
        self.checked(place, id, &key)?;
        let arn = key.principal.arn().to_owned();
        self.arns.entry(arn).or_insert_with(|| Arc::clone(&key.principal));
        self.keys.insert(id.to_owned(), key);
        Ok(())
    }

    fn referred(&self, place: &str, policies: &[PolicyRef]) -> Resolved<Vec<Arc<Policy>>> {
        let one = |(at, policy): (usize, &PolicyRef)| {
            let place = format!("{place}.policies[{at}]");
            match policy {
                PolicyRef::Inline(text) => inline(&place, text),
                PolicyRef::Named(name) => match (self.policies.get(name.as_str()), managed(name)) {
                    (Some(policy), _) => Ok(Arc::clone(policy)),
                    (None, Some(text)) => parsed(&place, text),
                    (None, None) => {
                        let managed = names().collect::<Vec<_>>().join(", ");
                        let problem = format!("there is no policy {name:?}: put it into policies, or take {managed}");
                        Err(CredentialsError::invalid(place, problem))
                    }
                },
            }
        };
        policies.iter().enumerate().map(one).collect()
    }
}

fn inline(place: &str, text: &RawValue) -> Resolved<Arc<Policy>> {
    parsed(place, text.get())
}

fn parsed(place: &str, text: &str) -> Resolved<Arc<Policy>> {
    Policy::parse(text, Kind::Identity).map(Arc::new).map_err(|error| invalid(place, &error))
}

fn account(place: &str, number: &str) -> Resolved<AccountId> {
    number.parse().map_err(|error: policy::InvalidPrincipal| invalid(place, &error))
}

fn name(place: &str, name: &str) -> Resolved<()> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"_+=,.@-".contains(&byte);
    if (1..=64).contains(&name.len()) && name.bytes().all(is_valid) {
        return Ok(());
    }
    let problem = format!("{name:?} is no name of 1 to 64 letters, digits and _+=,.@-");
    Err(CredentialsError::invalid(format!("{place}.name"), problem))
}

fn invalid(place: &str, error: &dyn std::error::Error) -> CredentialsError {
    CredentialsError::invalid(place, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::super::directory::Directory;
    use super::*;

    fn directory(text: &str) -> Resolved<Directory> {
        let head = r#"{"account":"123456789012","region":"us-east-1""#;
        Directory::resolve(&serde_json::from_str(&format!("{head}{text}}}")).unwrap())
    }

    #[test]
    fn what_can_not_be_is_refused_with_its_place() {
        for (text, expected) in [
            (r#","publicAlias":"A B""#, "publicAlias: \"A B\" is no name"),
            (r#","users":[{"name":"a b"}]"#, "users[0].name: \"a b\" is no name"),
            (r#","users":[{"name":"a"},{"name":"A"}]"#, "users[1]: there is another user \"A\""),
            (r#","users":[{"name":"a","account":"1"}]"#, "users[0].account: \"1\" is not valid"),
            (r#","users":[{"name":"a","groups":["g"]}]"#, "users[0].groups: there is no group \"g\" in 123456789012"),
            (r#","users":[{"name":"a","policies":["P"]}]"#, "users[0].policies[0]: there is no policy \"P\""),
            (r#","users":[{"name":"a","policies":[{"Statement":{}}]}]"#, "users[0].policies[0]: at /Statement"),
            (
                r#","users":[{"name":"a","accessKeys":[{"id":"AKIA","secret":"short"}]}]"#,
                "users[0].accessKeys[0]: a secret has at least 8 characters",
            ),
            (
                concat!(
                    r#","users":[{"name":"a","accessKeys":[{"id":"AKIA","secret":"12345678"},"#,
                    r#"{"id":"AKIA","secret":"12345678"}]}]"#
                ),
                "users[0].accessKeys[1]: another key has the same id",
            ),
            (r#","policies":{"AdministratorAccess":{"Statement":[]}}"#, "policies.AdministratorAccess: a managed"),
            (r#","accounts":{"12":{}}"#, "accounts.12: \"12\" is not valid"),
            (
                r#","roles":[{"name":"r","sessions":[{"name":"s","id":"ASIA","secret":"12345678","expires":"soon"}]}]"#,
                "roles[0].sessions[0].expires: it is no time",
            ),
        ] {
            let problem = directory(text).unwrap_err().to_string();
            assert!(problem.starts_with(expected), "{problem}");
        }
    }
}
