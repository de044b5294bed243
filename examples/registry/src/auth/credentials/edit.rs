//! Changes of the credentials, as the commands make them. What comes out is checked as a whole before it is written.

use std::io;
use std::time::{Duration, SystemTime};

use serde_json::value::RawValue;
use strongroom::sigv4::Secret;

use super::file::CredentialsError;
use super::{AccessKey, Document, Group, PolicyRef, Role, Session, Status, User};
use crate::auth::random::{self, LETTERS, SECRETS};

/// Who or what is meant: a name, in an account that is the registry's where none is given.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    pub name: &'a str,
    pub account: Option<&'a str>,
}

/// Names that are added to a list, and those that are taken from it.
#[derive(Clone, Copy, Debug)]
pub struct Changed<'a> {
    pub added: &'a [String],
    pub removed: &'a [String],
}

impl Changed<'_> {
    /// Changes a list; what is added and there already is there once.
    fn apply<T>(
        self,
        of: &str,
        list: &mut Vec<T>,
        name_of: fn(&T) -> Option<&str>,
        new: fn(String) -> T,
    ) -> Edited<()> {
        for name in self.removed {
            let at = list.iter().position(|one| name_of(one) == Some(name));
            let at = at.ok_or_else(|| CredentialsError::invalid(of, format!("the user does not have {name}")))?;
            list.remove(at);
        }
        for name in self.added {
            if !list.iter().any(|one| name_of(one) == Some(name)) {
                list.push(new(name.clone()));
            }
        }
        Ok(())
    }
}

type Edited<T> = Result<T, CredentialsError>;

impl Document {
    /// A new user with a key.
    pub fn add_user(&mut self, user: Named<'_>, groups: &[String], policies: &[String]) -> Edited<AccessKey> {
        self.is_new("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        let key = access_key()?;
        self.users.push(User {
            name: user.name.to_owned(),
            account: self.own_account(user),
            access_keys: vec![key.clone()],
            groups: groups.to_vec(),
            policies: named(policies),
            tags: Default::default(),
        });
        Ok(key)
    }

    pub fn remove_user(&mut self, user: Named<'_>) -> Edited<()> {
        let at = self.position("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        self.users.remove(at);
        Ok(())
    }

    /// Gives policies and groups to a user, and takes them away.
    pub fn change_user(&mut self, user: Named<'_>, policies: Changed<'_>, groups: Changed<'_>) -> Edited<()> {
        let at = self.position("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        let Some(found) = self.users.get_mut(at) else { return Ok(()) };
        policies.apply(user.name, &mut found.policies, PolicyRef::name, PolicyRef::Named)?;
        groups.apply(user.name, &mut found.groups, |group| Some(group), |group| group)
    }

    /// Makes a key of a user good or not, by its id.
    pub fn set_key(&mut self, user: Named<'_>, id: &str, status: Status) -> Edited<()> {
        let at = self.position("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        let mut keys = self.users.get_mut(at).into_iter().flat_map(|user| &mut user.access_keys);
        let key = keys.find(|key| key.id == id);
        let key = key.ok_or_else(|| CredentialsError::invalid(user.name, format!("the user has no key {id}")))?;
        key.status = status;
        Ok(())
    }

    /// A further key of a user.
    pub fn add_key(&mut self, user: Named<'_>) -> Edited<AccessKey> {
        let at = self.position("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        let key = access_key()?;
        self.users.get_mut(at).into_iter().for_each(|user| user.access_keys.push(key.clone()));
        Ok(key)
    }

    /// Removes a key of a user, by its id.
    pub fn remove_key(&mut self, user: Named<'_>, id: &str) -> Edited<()> {
        let at = self.position("user", user, self.users.iter().map(|user| (&user.name, &user.account)))?;
        let keys = self.users.get_mut(at).map(|user| &mut user.access_keys);
        let found = keys.and_then(|keys| {
            let at = keys.iter().position(|key| key.id == id)?;
            Some(keys.remove(at))
        });
        found.map(drop).ok_or_else(|| CredentialsError::invalid(user.name, format!("the user has no key {id}")))
    }

    pub fn add_group(&mut self, group: Named<'_>, policies: &[String]) -> Edited<()> {
        self.is_new("group", group, self.groups.iter().map(|group| (&group.name, &group.account)))?;
        let (name, account) = (group.name.to_owned(), self.own_account(group));
        self.groups.push(Group { name, account, policies: named(policies) });
        Ok(())
    }

    /// Removes a group. One that users are in is missed when the credentials are checked.
    pub fn remove_group(&mut self, group: Named<'_>) -> Edited<()> {
        let at = self.position("group", group, self.groups.iter().map(|group| (&group.name, &group.account)))?;
        self.groups.remove(at);
        Ok(())
    }

    /// Removes a role with its sessions, or the sessions of this name alone.
    pub fn remove_role(&mut self, role: Named<'_>, session: Option<&str>) -> Edited<()> {
        let at = self.position("role", role, self.roles.iter().map(|role| (&role.name, &role.account)))?;
        let Some(session) = session else {
            self.roles.remove(at);
            return Ok(());
        };
        let sessions = self.roles.get_mut(at).map(|role| &mut role.sessions);
        let removed = sessions.map_or(0, |sessions| {
            let before = sessions.len();
            sessions.retain(|own| own.name != session);
            before - sessions.len()
        });
        if removed == 0 {
            return Err(CredentialsError::invalid(role.name, format!("the role has no session {session}")));
        }
        Ok(())
    }

    /// A session of a role, which is made if there is none: with a token and an end where it has a duration.
    pub fn add_session(
        &mut self,
        role: Named<'_>,
        session: &str,
        policies: &[String],
        duration: Option<Duration>,
    ) -> Edited<Session> {
        let token = duration.map(|_| random::text(64, SECRETS).map(|token| Secret::new(token.as_str())));
        let expires = duration.map(|duration| SystemTime::now() + duration);
        let made = Session {
            name: session.to_owned(),
            id: key_id("ASIA")?,
            secret: secret()?,
            token: token.transpose().map_err(not_drawn)?,
            expires: expires.map(|expires| humantime::format_rfc3339_seconds(expires).to_string()),
        };
        match self.position("role", role, self.roles.iter().map(|role| (&role.name, &role.account))) {
            Ok(at) => {
                if let Some(role) = self.roles.get_mut(at) {
                    role.sessions.push(made.clone());
                    let known = |name: &String| role.policies.iter().any(|own| own.name() == Some(name));
                    let new: Vec<_> = policies.iter().filter(|name| !known(name)).cloned().collect();
                    role.policies.extend(named(&new));
                }
            }
            Err(_) => self.roles.push(Role {
                name: role.name.to_owned(),
                account: self.own_account(role),
                policies: named(policies),
                tags: Default::default(),
                sessions: vec![made.clone()],
            }),
        }
        Ok(made)
    }

    /// Puts a policy under a name, in place of the one that was there.
    pub fn put_policy(&mut self, name: &str, text: &str) -> Edited<()> {
        let text: Box<RawValue> =
            serde_json::from_str(text).map_err(|error| CredentialsError::invalid(name, format!("no JSON: {error}")))?;
        self.policies.insert(name.to_owned(), text);
        Ok(())
    }

    /// Removes a policy. One that somebody has is missed when the credentials are checked.
    pub fn remove_policy(&mut self, name: &str) -> Edited<()> {
        let removed = self.policies.remove(name);
        removed.map(drop).ok_or_else(|| CredentialsError::invalid(name, "there is no such policy in the file"))
    }

    /// The account to write down: none where it is the registry's.
    fn own_account(&self, named: Named<'_>) -> Option<String> {
        named.account.filter(|account| *account != self.account).map(str::to_owned)
    }

    fn position<'a>(
        &'a self,
        kind: &str,
        named: Named<'_>,
        mut all: impl Iterator<Item = (&'a String, &'a Option<String>)>,
    ) -> Edited<usize> {
        let of = named.account.unwrap_or(&self.account);
        let found = all.position(|(name, own)| name.eq_ignore_ascii_case(named.name) && self.account_of(own) == of);
        found.ok_or_else(|| CredentialsError::invalid(named.name, format!("there is no such {kind} in account {of}")))
    }

    fn is_new<'a>(
        &'a self,
        kind: &str,
        named: Named<'_>,
        all: impl Iterator<Item = (&'a String, &'a Option<String>)>,
    ) -> Edited<()> {
        match self.position(kind, named, all) {
            Ok(_) => Err(CredentialsError::invalid(named.name, format!("there is such a {kind} already"))),
            Err(_) => Ok(()),
        }
    }
}

fn named(policies: &[String]) -> Vec<PolicyRef> {
    policies.iter().cloned().map(PolicyRef::Named).collect()
}

fn access_key() -> Edited<AccessKey> {
    Ok(AccessKey { id: key_id("AKIA")?, secret: secret()?, status: Status::Active })
}

/// An id as those of AWS: 20 characters.
fn key_id(prefix: &str) -> Edited<String> {
    random::text(16, LETTERS).map(|letters| format!("{prefix}{}", *letters)).map_err(not_drawn)
}

/// A secret as those of AWS: 40 characters, 240 random bits.
fn secret() -> Edited<Secret> {
    random::text(40, SECRETS).map(|text| Secret::new(text.as_str())).map_err(not_drawn)
}

fn not_drawn(error: io::Error) -> CredentialsError {
    CredentialsError::invalid("keys", error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::directory::Directory;

    fn named(name: &str) -> Named<'_> {
        Named { name, account: None }
    }

    #[test]
    fn what_is_made_can_be_used_and_removed() {
        let mut document = Document::new("123456789012", "us-east-1");
        document.put_policy("mine", r#"{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}"#).unwrap();
        document.add_group(named("pushers"), &["mine".to_owned()]).unwrap();
        let key = document.add_user(named("ci"), &["pushers".to_owned()], &[]).unwrap();
        assert_eq!((key.id.len(), key.secret.expose().len()), (20, 40));
        let far = Named { name: "ci", account: Some("210987654321") };
        let other = document.add_user(far, &[], &["AmazonEC2ContainerRegistryPullOnly".to_owned()]).unwrap();
        let second = document.add_key(named("ci")).unwrap();
        let hour = Some(Duration::from_secs(3600));
        let session = document.add_session(named("deploy"), "cd", &["mine".to_owned()], hour).unwrap();
        document.add_session(named("deploy"), "long", &[], None).unwrap();
        assert_eq!((document.roles.len(), document.roles[0].sessions.len()), (1, 2));
        assert!(session.token.is_some() && session.expires.is_some());

        let directory = Directory::resolve(&document).unwrap();
        let now = SystemTime::now();
        assert_eq!(directory.by_key(&key.id, now).unwrap().policies.len(), 1);
        assert_eq!(directory.by_key(&other.id, now).unwrap().arn(), "arn:aws:iam::210987654321:user/ci");
        assert!(directory.by_secret(&second.id, second.secret.expose(), now).is_some());
        assert!(directory.by_key(&session.id, now).is_some());
        assert!(directory.by_key(&session.id, now + Duration::from_secs(3601)).is_none());

        document.remove_key(named("ci"), &key.id).unwrap();
        assert!(document.remove_key(named("ci"), &key.id).is_err());
        document.remove_user(far).unwrap();
        let directory = Directory::resolve(&document).unwrap();
        assert!(directory.by_key(&key.id, now).is_none() && directory.by_key(&other.id, now).is_none());
    }

    #[test]
    fn what_is_there_is_not_made_again_and_what_is_not_there_is_not_changed() {
        let mut document = Document::new("123456789012", "us-east-1");
        document.add_user(named("ci"), &[], &[]).unwrap();
        let problem = document.add_user(named("CI"), &[], &[]).unwrap_err().to_string();
        assert_eq!(problem, "CI: there is such a user already");
        let problem = document.add_key(named("x")).unwrap_err().to_string();
        assert_eq!(problem, "x: there is no such user in account 123456789012");
        assert!(document.put_policy("p", "{").is_err());
    }
}
