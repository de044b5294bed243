//! The commands that create and encrypt a store, and those for its keys and key domains.

use std::ops::ControlFlow;
use std::path::Path;

use clap::Subcommand;
use serde_json::{Value, json};
use strongroom::keys::DomainName;
use strongroom::{DataKeyInfo, DomainInfo, Error, LockedDomain, Rewriting, Store};

use crate::commands::Access;
use crate::failure::Failure;
use crate::keys::{NewKeyOptions, OPTIONS, is_confirmed};
use crate::output::{self, Output, escaped, size};

#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// List the data keys: their numbers, what they are wrapped with, and which are in use.
    List,
    /// Encrypt what is written from now on with a new data key.
    Rotate {
        /// The key domain; the default one without it.
        #[arg(long, value_name = "NAME")]
        domain: Option<DomainName>,
        /// Also encrypt what is there with it, and destroy the old one.
        #[arg(long)]
        rewrite: bool,
    },
    /// Encrypt all that is there with the current data keys, and destroy the others. Goes on where it was interrupted.
    Rewrite,
    /// Wrap the data keys with another key, which opens the store from then on. Touches no data.
    Rewrap {
        #[command(flatten)]
        new: NewKeyOptions,
    },
}

#[derive(Debug, Subcommand)]
pub enum DomainCommand {
    /// Create a key domain: a part of the store with data keys of its own, which can be destroyed by itself.
    Create {
        /// The name.
        name: DomainName,
        /// The key that its data keys are wrapped with, where there are several, as with a key management service.
        #[arg(long, value_name = "ID")]
        key_id: Option<String>,
    },
    /// List the key domains.
    List,
    /// Destroy a key domain's keys, and with them all that is in it, for good.
    Shred {
        /// The name.
        name: DomainName,
        /// Don't ask.
        #[arg(long)]
        yes: bool,
    },
}

/// Creates a store.
pub fn init(data: &Path, encrypt: bool, access: &Access, output: &Output) -> Result<(), Failure> {
    match (encrypt, &access.key) {
        (true, None) => return Err(no_key()),
        (false, Some(_)) => {
            return Err(Failure::Usage("a key is for an encrypted store: add --encrypt, or leave the key out".into()));
        }
        _ => {}
    }
    match access.without_key().open(data) {
        Err(Error::NotAStore { .. }) => {}
        Ok(_) | Err(Error::KeyRequired { .. }) => {
            let problem = format!("{} is a store already: nothing was done", output::shown(data));
            return Err(Failure::Document(problem));
        }
        Err(error) => return Err(error.into()),
    }
    let options = access.without_key().create(true);
    let options = match &access.key {
        Some(source) => options.key_provider(source.for_new(data)?),
        None => options,
    };
    options.open(data)?.close()?;
    let text = if encrypt { "an encrypted store is there" } else { "a store is there" };
    output.print(&json!({ "initialized": true, "encrypted": encrypt }), text);
    Ok(())
}

/// Turns encryption on and rewrites everything, or goes on with that.
pub fn encrypt(data: &Path, access: &Access, output: &Output) -> Result<(), Failure> {
    let source = access.key.as_ref().ok_or_else(no_key)?;
    let store = match access.without_key().open(data) {
        Ok(store) => {
            store.encrypt(source.for_new(data)?)?;
            store
        }
        Err(Error::KeyRequired { .. }) => access.open(data)?,
        Err(error) => return Err(error.into()),
    };
    let report = rewrite(&store, output)?;
    print_rewritten(&report, "all of the store is encrypted", output)?;
    Ok(store.close()?)
}

/// Commands for keys.
pub fn key(store: &Store, data: &Path, command: KeyCommand, output: &Output) -> Result<(), Failure> {
    needs_encryption(store)?;
    match command {
        KeyCommand::List => {
            for domain in &store.domains() {
                // Domains are created in encrypted stores alone.
                list_keys(domain, store.holds_plain() && domain.number == 0, output);
            }
        }
        KeyCommand::Rotate { domain, rewrite: and_rewrite } => {
            store.rotate_data_key(domain.as_ref())?;
            if and_rewrite {
                let report = rewrite(store, output)?;
                print_rewritten(&report, "all is encrypted with the current data keys", output)?;
            } else {
                let text = "what is written from now on has the new data key: `strongroom key rewrite` is for the rest";
                output.print(&json!({ "rotated": true }), text);
            }
        }
        KeyCommand::Rewrite => {
            let report = rewrite(store, output)?;
            print_rewritten(&report, "all is encrypted with the current data keys", output)?;
        }
        KeyCommand::Rewrap { new } => {
            store.rewrap_keys(new.source().ok_or_else(no_key)?.for_new(data)?)?;
            output.print(&json!({ "rewrapped": true }), "the store opens with the new key from now on");
        }
    }
    Ok(())
}

/// Commands for key domains.
pub fn domain(store: &Store, command: DomainCommand, output: &Output) -> Result<(), Failure> {
    match command {
        DomainCommand::Create { name, key_id } => {
            needs_encryption(store)?;
            store.create_domain(&name, key_id.as_deref())?;
            output.print(&json!({ "created": name.as_str() }), "");
        }
        DomainCommand::List => {
            for domain in store.domains() {
                let key_id = current_key_id(&domain);
                let locked = store.locked_domains().into_iter().find(|locked| locked.number == domain.number);
                let locked = locked.map(|locked| escaped(&locked.error.to_string()));
                let document = json!({
                    "domain": domain.number, "name": domain.name.as_ref().map(DomainName::as_str),
                    "key": domain.current_key, "key_id": key_id, "locked": locked,
                });
                output.row(&document, || {
                    let locked = locked.iter().map(|why| format!(" locked: {why}")).collect::<String>();
                    let key_id = key_id.unwrap_or("not encrypted");
                    format!("{:<32} {:>4} {key_id}{locked}", shown(&domain), domain.number)
                });
            }
        }
        DomainCommand::Shred { name, yes } => {
            if !store.domains().iter().any(|domain| domain.name.as_ref() == Some(&name)) {
                return Err(Error::DomainNotFound { name: name.to_string() }.into());
            }
            let what = format!("This destroys all that is in the key domain {name}, for good.");
            if !yes && !is_confirmed(&what, name.as_str())? {
                return Err(Failure::Document("that is not its name: nothing was done".into()));
            }
            store.shred_domain(&name)?;
            output.print(&json!({ "shredded": name.as_str() }), &format!("{name} is gone"));
        }
    }
    Ok(())
}

fn no_key() -> Failure {
    Failure::Usage(format!("a key is needed: give {OPTIONS}"))
}

fn needs_encryption(store: &Store) -> Result<(), Failure> {
    if store.is_encrypted() {
        return Ok(());
    }
    Err(Failure::Document("the store is not encrypted: turn encryption on with `strongroom encrypt`".into()))
}

/// Encrypts everything with the current data keys.
fn rewrite(store: &Store, output: &Output) -> Result<Rewriting, Failure> {
    let progress = output.bytes(0);
    let report = store.rewrite(|so_far| {
        progress.set_length(so_far.total_bytes);
        progress.set_position(so_far.bytes);
        ControlFlow::Continue(())
    })?;
    progress.finish_and_clear();
    Ok(report)
}

fn print_rewritten(report: &Rewriting, done: &str, output: &Output) -> Result<(), Failure> {
    let damaged: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    let document = json!({
        "blobs": report.blobs, "bytes": report.bytes, "damaged": damaged, "complete": report.complete,
        "locked": locked(&report.locked),
    });
    let mut text = format!("{} blobs, {} rewritten", report.blobs, size(report.bytes));
    if report.complete {
        text = format!("{text}: {done}");
    }
    damaged.iter().chain(&locked(&report.locked)).for_each(|told| text = format!("{text}\n{told}"));
    output.print(&document, &text);
    match damaged.len() {
        0 if report.complete => Ok(()),
        0 => Err(Failure::Document("something is left to be rewritten: run `strongroom key rewrite`".into())),
        count => Err(Failure::Damaged(count)),
    }
}

/// What is said of locked domains, a line each.
pub fn locked(domains: &[LockedDomain]) -> Vec<String> {
    let name = |domain: &LockedDomain| domain.name.as_ref().map_or_else(String::new, ToString::to_string);
    let line = |domain| format!("left out: the key domain {} is locked: {}", name(domain), domain.error);
    domains.iter().map(|domain| escaped(&line(domain))).collect()
}

/// One line for each data key of a domain, and one for what has none; in JSON, one document.
fn list_keys(domain: &DomainInfo, holds_plain: bool, output: &Output) {
    let is_current = |key: &DataKeyInfo| key.number == domain.current_key;
    let keys: Vec<Value> = domain
        .keys
        .iter()
        .map(|key| json!({ "key": key.number, "key_id": key.key_id, "current": is_current(key) }))
        .collect();
    let document = json!({
        "domain": domain.number, "name": domain.name.as_ref().map(DomainName::as_str), "keys": keys,
        "rewritten": !holds_plain && domain.keys.iter().all(is_current),
    });
    output.row(&document, || {
        const LEFT: &str = "to be rewritten: `strongroom key rewrite`";
        let line = |number: u32, id: &str, state: &str| format!("{:<32} {number:>4} {id} {state}", shown(domain));
        let keys = domain.keys.iter();
        let mut lines: Vec<String> =
            keys.map(|key| line(key.number, &key.key_id, if is_current(key) { "current" } else { LEFT })).collect();
        if holds_plain {
            lines.insert(0, line(0, "not encrypted,", LEFT));
        }
        lines.join("\n")
    });
}

/// A domain as the reader is told it. No name has parentheses.
fn shown(domain: &DomainInfo) -> &str {
    domain.name.as_ref().map_or("(default)", DomainName::as_str)
}

fn current_key_id(domain: &DomainInfo) -> Option<&str> {
    domain.keys.iter().find(|key| key.number == domain.current_key).map(|key| key.key_id.as_str())
}
