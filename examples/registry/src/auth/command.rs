//! The commands that change the credentials file.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::credentials::edit::{Changed, Named};
use super::credentials::file::{CredentialsError, Lock};
use super::credentials::{Document, Status};
use super::directory::Directory;
use super::listing::{self, Listed};

/// What can be done to a credentials file. A registry that runs reads it again by itself.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// The credentials file itself.
    #[command(subcommand)]
    Credentials(FileCommand),
    /// Users and their access keys.
    #[command(subcommand)]
    User(UserCommand),
    /// Groups: policies that several users have.
    #[command(subcommand)]
    Group(GroupCommand),
    /// Roles, and their sessions.
    #[command(subcommand)]
    Role(RoleCommand),
    /// Policies under names.
    #[command(subcommand)]
    Policy(PolicyCommand),
}

/// How to print.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Output {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Who is meant.
#[derive(Clone, Debug, clap::Args)]
pub struct Who {
    /// Letters, digits and _+=,.@-
    name: String,
    /// Of which account; the registry's if it is left out.
    #[arg(long, value_name = "NUMBER")]
    account: Option<String>,
}

impl Who {
    fn named(&self) -> Named<'_> {
        Named { name: &self.name, account: self.account.as_deref() }
    }
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum FileCommand {
    /// Create the file, with nobody in it.
    Create {
        /// The account whose registry this is: 12 digits.
        #[arg(long, value_name = "NUMBER", default_value = NO_ACCOUNT)]
        account: String,
        /// The region that clients sign for.
        #[arg(long, default_value = REGION)]
        region: String,
        /// The name under which public repositories are reached.
        #[arg(long, value_name = "NAME", default_value = "public")]
        public_alias: String,
    },
    /// Check the file.
    Check,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum UserCommand {
    /// Add a user, and print its access key. The file is created if there is none.
    Add {
        #[command(flatten)]
        who: Who,
        /// A policy of the file, or one that AWS manages. None: the user may do nothing but what repositories allow.
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// A group that the user belongs to.
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Give policies and groups to a user, or take them away.
    Change {
        #[command(flatten)]
        who: Who,
        /// A policy to give.
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// A policy to take away.
        #[arg(long, value_name = "NAME")]
        remove_policy: Vec<String>,
        /// A group that the user is to belong to.
        #[arg(long, value_name = "NAME")]
        group: Vec<String>,
        /// A group that the user is to leave.
        #[arg(long, value_name = "NAME")]
        remove_group: Vec<String>,
    },
    /// List users, with the ids of their keys, their groups and policies.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a user with its keys. What was given to it ends at once.
    Remove {
        #[command(flatten)]
        who: Who,
    },
    /// The access keys of a user.
    #[command(subcommand)]
    Key(KeyCommand),
}

/// Which key of a user.
#[derive(Clone, Debug, clap::Args)]
pub struct Key {
    #[command(flatten)]
    who: Who,
    /// The key's id.
    #[arg(value_name = "ID")]
    id: String,
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum KeyCommand {
    /// Add a key to a user, and print it.
    Add {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        output: Output,
    },
    /// Make a key inactive: it and tokens that were asked for with it are refused until it is active again.
    Disable(Key),
    /// Make a key active again.
    Enable(Key),
    /// Remove a key. Tokens that were asked for with it end at once.
    Remove(Key),
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum GroupCommand {
    /// Add a group.
    Add {
        #[command(flatten)]
        who: Who,
        /// A policy of the file, or one that AWS manages.
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
    },
    /// List groups and their policies.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a group that no user is in.
    Remove {
        #[command(flatten)]
        who: Who,
    },
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum RoleCommand {
    /// Add a session to a role, which is made if there is none, and print its key.
    Add {
        #[command(flatten)]
        who: Who,
        /// The name of the session.
        #[arg(long, value_name = "NAME", default_value = "session")]
        session: String,
        /// A policy of the file, or one that AWS manages.
        #[arg(long, value_name = "NAME")]
        policy: Vec<String>,
        /// For how long the session lasts. Without it, it does not end, and has no token.
        #[arg(long, value_parser = humantime::parse_duration)]
        duration: Option<Duration>,
        #[command(flatten)]
        output: Output,
    },
    /// List roles, with the ids of their sessions' keys and their policies.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a role with its sessions. What was given to them ends at once.
    Remove {
        #[command(flatten)]
        who: Who,
        /// The sessions of this name only.
        #[arg(long, value_name = "NAME")]
        session: Option<String>,
    },
}

#[derive(Clone, Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Put the policy in a file under a name, in place of the one that was there.
    Put {
        name: String,
        /// The file; - for the standard input.
        file: PathBuf,
    },
    /// List the names of the policies in the file.
    List,
    /// Remove a policy that nobody has.
    Remove { name: String },
}

const NO_ACCOUNT: &str = "000000000000";
const REGION: &str = "us-east-1";

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error("there is no {}: create it with `registry credentials create`", .0.display())]
    NoFile(PathBuf),
    #[error("{}: {source}", path.display())]
    Input { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Output(#[from] io::Error),
}

impl Command {
    /// Runs it on a credentials file.
    pub fn run(&self, credentials: &Path, out: &mut dyn Write) -> Result<(), CommandError> {
        let file = Changing { path: credentials, lock: Lock::take(credentials)? };
        match self {
            Self::Credentials(FileCommand::Create { account, region, public_alias }) => {
                let document = Document { public_alias: public_alias.clone(), ..Document::new(account, region) };
                Directory::resolve(&document)?;
                file.lock.create(&document)?;
                Ok(())
            }
            Self::Credentials(FileCommand::Check) => {
                let keys = Directory::resolve(&file.read()?)?.keys();
                Ok(writeln!(out, "{keys} keys can be used")?)
            }
            Self::User(command) => command.run(&file, out),
            Self::Group(GroupCommand::Add { who, policy }) => {
                file.change(|document| document.add_group(who.named(), policy))
            }
            Self::Group(GroupCommand::List { output }) => output.list(out, listing::groups(&file.read()?)),
            Self::Group(GroupCommand::Remove { who }) => file.change(|document| document.remove_group(who.named())),
            Self::Role(RoleCommand::Add { who, session, policy, duration, output }) => {
                let made = file.change(|document| document.add_session(who.named(), session, policy, *duration))?;
                let token = made.token.as_ref().map(|token| token.expose());
                let fields = [
                    ("accessKeyId", Some(made.id.as_str())),
                    ("secretAccessKey", Some(made.secret.expose())),
                    ("sessionToken", token),
                    ("expiration", made.expires.as_deref()),
                ];
                output.once(out, &fields)
            }
            Self::Role(RoleCommand::List { output }) => output.list(out, listing::roles(&file.read()?)),
            Self::Role(RoleCommand::Remove { who, session }) => {
                file.change(|document| document.remove_role(who.named(), session.as_deref()))
            }
            Self::Policy(PolicyCommand::List) => {
                file.read()?.policies.keys().try_for_each(|name| Ok(writeln!(out, "{name}")?))
            }
            Self::Policy(PolicyCommand::Remove { name }) => file.change(|document| document.remove_policy(name)),
            Self::Policy(PolicyCommand::Put { name, file: input }) => {
                let text = if input.as_os_str() == "-" {
                    io::read_to_string(io::stdin())
                } else {
                    std::fs::read_to_string(input)
                };
                let text = text.map_err(|source| CommandError::Input { path: input.clone(), source })?;
                file.change(|document| document.put_policy(name, &text))
            }
        }
    }
}

impl UserCommand {
    fn run(&self, file: &Changing<'_>, out: &mut dyn Write) -> Result<(), CommandError> {
        match self {
            Self::Add { who, policy, group, output } => {
                let account = who.account.as_deref().unwrap_or(NO_ACCOUNT);
                let add = |document: &mut Document| document.add_user(who.named(), group, policy);
                let key = file.change_or_create(account, add)?;
                output.key(out, &key.id, key.secret.expose())
            }
            Self::Key(KeyCommand::Add { who, output }) => {
                let key = file.change(|document| document.add_key(who.named()))?;
                output.key(out, &key.id, key.secret.expose())
            }
            Self::Key(KeyCommand::Remove(Key { who, id })) => {
                file.change(|document| document.remove_key(who.named(), id))
            }
            Self::Key(KeyCommand::Disable(Key { who, id })) => {
                file.change(|document| document.set_key(who.named(), id, Status::Inactive))
            }
            Self::Key(KeyCommand::Enable(Key { who, id })) => {
                file.change(|document| document.set_key(who.named(), id, Status::Active))
            }
            Self::Change { who, policy, remove_policy, group, remove_group } => file.change(|document| {
                let policies = Changed { added: policy, removed: remove_policy };
                document.change_user(who.named(), policies, Changed { added: group, removed: remove_group })
            }),
            Self::Remove { who } => file.change(|document| document.remove_user(who.named())),
            Self::List { output } => output.list(out, listing::users(&file.read()?)),
        }
    }
}

/// A file that nobody else changes meanwhile.
struct Changing<'a> {
    path: &'a Path,
    lock: Lock,
}

impl Changing<'_> {
    fn read(&self) -> Result<Document, CommandError> {
        self.lock.read()?.ok_or_else(|| CommandError::NoFile(self.path.to_owned()))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Document) -> Result<T, CredentialsError>) -> Result<T, CommandError> {
        let mut document = self.read()?;
        let changed = change(&mut document)?;
        Directory::resolve(&document)?;
        self.lock.replace(&document)?;
        Ok(changed)
    }

    /// With a new file where there is none, of a registry of this account.
    fn change_or_create<T>(
        &self,
        account: &str,
        change: impl FnOnce(&mut Document) -> Result<T, CredentialsError>,
    ) -> Result<T, CommandError> {
        if self.lock.read()?.is_some() {
            return self.change(change);
        }
        let mut document = Document::new(account, REGION);
        let changed = change(&mut document)?;
        Directory::resolve(&document)?;
        self.lock.create(&document)?;
        Ok(changed)
    }
}

impl Output {
    fn key(self, out: &mut dyn Write, id: &str, secret: &str) -> Result<(), CommandError> {
        self.once(out, &[("accessKeyId", Some(id)), ("secretAccessKey", Some(secret))])
    }

    /// Prints what is not shown again.
    fn once(self, out: &mut dyn Write, fields: &[(&str, Option<&str>)]) -> Result<(), CommandError> {
        let fields = fields.iter().filter_map(|(name, value)| Some((*name, (*value)?)));
        if self.json {
            let object: Value = fields.map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
            return Ok(writeln!(out, "{object:#}")?);
        }
        for (name, value) in fields {
            writeln!(out, "{name:<16} {value}")?;
        }
        Ok(writeln!(out, "The secret is not shown again.")?)
    }

    /// Prints a line for each.
    fn list(self, out: &mut dyn Write, listed: Vec<Listed>) -> Result<(), CommandError> {
        for one in listed {
            if self.json {
                writeln!(out, "{}", one.json)?;
            } else {
                writeln!(out, "{}", one.text)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use serde_json::json;

    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(subcommand)]
        command: Command,
    }

    fn run(path: &Path, line: &str) -> Result<String, String> {
        let line = Line::try_parse_from(std::iter::once("registry").chain(line.split(' '))).unwrap();
        let mut out = Vec::new();
        line.command.run(path, &mut out).map_err(|error| error.to_string())?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn users_are_added_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        assert!(run(&path, "user list").unwrap_err().ends_with("create it with `registry credentials create`"));
        let line = "user add ci --account 123456789012 --policy AmazonEC2ContainerRegistryPowerUser --json";
        let key: Value = serde_json::from_str(&run(&path, line).unwrap()).unwrap();
        let id = key["accessKeyId"].as_str().unwrap();
        assert_eq!(key["secretAccessKey"].as_str().unwrap().len(), 40);
        let policy = "AmazonEC2ContainerRegistryPowerUser";
        let listed = format!("arn:aws:iam::123456789012:user/ci  {id} (Active)  policies: {policy}\n");
        assert_eq!(run(&path, "user list").unwrap(), listed);
        let listed: Value = serde_json::from_str(&run(&path, "user list --json").unwrap()).unwrap();
        assert_eq!(listed["policies"], json!([policy]));

        run(&path, "group add pushers --policy AmazonEC2ContainerRegistryPowerUser").unwrap();
        let text = run(&path, "user add other --group pushers").unwrap();
        assert!(
            text.starts_with("accessKeyId      AKIA") && text.ends_with("The secret is not shown again.\n"),
            "{text}"
        );
        run(&path, "user key add ci").unwrap();
        run(&path, &format!("user key remove ci {id}")).unwrap();
        run(&path, "user remove other").unwrap();
        assert_eq!(run(&path, "credentials check").unwrap(), "1 keys can be used\n");
        let session = run(&path, "role add deploy --session cd --policy AdministratorAccess --duration 1h").unwrap();
        assert!(session.contains("sessionToken") && session.contains("expiration"), "{session}");
        assert!(!run(&path, "user list --json").unwrap().contains("secret"));
    }

    #[test]
    fn a_user_is_given_policies_and_groups_and_a_key_is_made_inactive() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        let (read, admin) = ("AmazonEC2ContainerRegistryReadOnly", "AdministratorAccess");
        let key: Value =
            serde_json::from_str(&run(&path, &format!("user add ci --policy {read} --json")).unwrap()).unwrap();
        let id = key["accessKeyId"].as_str().unwrap();
        run(&path, "group add pushers").unwrap();
        run(&path, &format!("user change ci --policy {admin} --policy {read} --group pushers")).unwrap();
        let listed = || serde_json::from_str::<Value>(&run(&path, "user list --json").unwrap()).unwrap();
        assert_eq!((&listed()["policies"], &listed()["groups"]), (&json!([read, admin]), &json!(["pushers"])));
        run(&path, &format!("user change ci --remove-policy {read} --remove-group pushers")).unwrap();
        assert_eq!(listed()["policies"], json!([admin]));
        assert!(run(&path, &format!("user change ci --remove-policy {read}")).unwrap_err().contains("does not have"));
        assert!(run(&path, "user change ci --policy None").unwrap_err().contains("there is no policy"));
        assert_eq!(run(&path, "credentials check").unwrap(), "1 keys can be used\n");
        run(&path, &format!("user key disable ci {id}")).unwrap();
        assert_eq!(run(&path, "credentials check").unwrap(), "0 keys can be used\n");
        run(&path, &format!("user key enable ci {id}")).unwrap();
        assert_eq!(run(&path, "credentials check").unwrap(), "1 keys can be used\n");
    }

    #[test]
    fn groups_roles_and_policies_are_listed_and_removed_unless_somebody_has_them() {
        let dir = tempfile::tempdir().unwrap();
        let (path, policy) = (dir.path().join("credentials.json"), dir.path().join("policy.json"));
        std::fs::write(&policy, r#"{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}"#).unwrap();
        run(&path, "credentials create --account 123456789012").unwrap();
        run(&path, &format!("policy put mine {}", policy.display())).unwrap();
        run(&path, "group add pushers --policy mine").unwrap();
        run(&path, "user add ci --group pushers").unwrap();
        let made = |line: &str| serde_json::from_str::<Value>(&run(&path, line).unwrap()).unwrap();
        let (one, other) = (made("role add cd --session one --duration 1h --json"), made("role add cd --json"));

        assert_eq!(run(&path, "policy list").unwrap(), "mine\n");
        assert_eq!(run(&path, "group list").unwrap(), "arn:aws:iam::123456789012:group/pushers  policies: mine\n");
        let text = |of: &Value, member: &str| of[member].as_str().unwrap().to_owned();
        let (key, end, second) = (text(&one, "accessKeyId"), text(&one, "expiration"), text(&other, "accessKeyId"));
        let listed = format!("arn:aws:iam::123456789012:role/cd  one: {key} (until {end}), session: {second}\n");
        assert_eq!(run(&path, "role list").unwrap(), listed);
        assert!(!run(&path, "role list --json").unwrap().contains(&text(&one, "sessionToken")));

        assert!(run(&path, "group remove pushers").unwrap_err().contains("there is no group \"pushers\""));
        assert!(run(&path, "policy remove mine").unwrap_err().contains("there is no policy \"mine\""));
        assert_eq!(run(&path, "role remove cd --session x").unwrap_err(), "cd: the role has no session x");
        run(&path, "role remove cd --session one").unwrap();
        assert_eq!(run(&path, "credentials check").unwrap(), "2 keys can be used\n");
        for line in ["role remove cd", "user remove ci", "group remove pushers", "policy remove mine"] {
            run(&path, line).unwrap();
        }
        assert_eq!(run(&path, "credentials check").unwrap(), "0 keys can be used\n");
        assert!(run(&path, "policy remove mine").is_err() && run(&path, "role remove cd").is_err());
    }

    #[test]
    fn a_change_that_leads_to_nothing_valid_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials.json");
        run(&path, "credentials create --account 123456789012 --region eu-west-1").unwrap();
        assert!(run(&path, "credentials create").unwrap_err().contains("remove it, or add users to it"));
        let before = std::fs::read(&path).unwrap();
        let policy = dir.path().join("policy.json");
        std::fs::write(&policy, r#"{"Statement":[{"Effect":"allow"}]}"#).unwrap();
        let problem = run(&path, &format!("policy put mine {}", policy.display())).unwrap_err();
        assert!(problem.starts_with("policies.mine: at /Statement/0"), "{problem}");
        assert!(run(&path, "user add ci --policy None").unwrap_err().contains("there is no policy \"None\""));
        assert!(run(&path, "user add ci --group none").unwrap_err().contains("there is no group \"none\""));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        std::fs::write(&policy, r#"{"Statement":{"Effect":"Allow","Action":"ecr:*","Resource":"*"}}"#).unwrap();
        run(&path, &format!("policy put mine {}", policy.display())).unwrap();
        run(&path, "user add ci --policy mine").unwrap();
    }
}
