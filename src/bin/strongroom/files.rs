//! The commands for named files: content under names that can be replaced.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use serde_json::{Value, json};
use strongroom::keys::DomainName;
use strongroom::transfer::import_of_part;
use strongroom::{Digest, Error, ExpectNamed, Expires, NamedFile, NamedFiles, PutNamed, Store};

use crate::commands::{copy, is_standard_input};
use crate::failure::{Failure, at};
use crate::output::{Output, escaped};
use crate::units::{duration, time};

#[derive(Debug, Subcommand)]
pub enum FileCommand {
    /// Set a name to the content of a file (`-` for standard input).
    Put {
        /// The name.
        name: String,
        /// The file.
        file: PathBuf,
        #[command(flatten)]
        expected: Expected,
        /// Fail if the name is in use.
        #[arg(long, conflicts_with = "if_digest")]
        if_absent: bool,
        /// Expire the file after this time, counted only while the store is open.
        #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "expires_at")]
        expires: Option<Duration>,
        /// Expire the file at this time of the wall clock: `2027-01-31T12:00:00Z`, or `@` and seconds since 1970.
        #[arg(long, value_name = "TIME", value_parser = time)]
        expires_at: Option<SystemTime>,
        /// Let the content that is replaced go with the next collection, instead of after the grace period.
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        domain: Domain,
    },
    /// Write the content of a name to a file, which must not exist (`-`, the default, for standard output).
    Get {
        /// The name.
        name: String,
        /// The file.
        #[arg(default_value = "-")]
        output: PathBuf,
        #[command(flatten)]
        domain: Domain,
    },
    /// List names, their content's digests and lengths.
    Ls {
        /// List names that begin so.
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        domain: Domain,
    },
    /// Remove names.
    Rm {
        /// The names; with --prefix, what the names begin with.
        #[arg(required = true)]
        names: Vec<String>,
        /// Remove all names that begin so.
        #[arg(long)]
        prefix: bool,
        #[command(flatten)]
        expected: Expected,
        /// Let the content go with the next collection, instead of after the grace period.
        #[arg(long)]
        discard: bool,
        #[command(flatten)]
        domain: Domain,
    },
}

/// What a name has to have for a command to take place.
#[derive(Debug, Args)]
pub struct Expected {
    /// Fail unless the name has content with this digest.
    #[arg(long, value_name = "DIGEST")]
    if_digest: Option<Digest>,
}

/// Where the names are.
#[derive(Debug, Args)]
pub struct Domain {
    /// The key domain; the default one without it.
    #[arg(long, value_name = "NAME")]
    domain: Option<DomainName>,
}

fn files(store: &Store, of: Domain, discard: bool) -> Result<NamedFiles, Failure> {
    let files = of.domain.map_or_else(|| Ok(store.named()), |domain| store.named_in(&domain))?;
    Ok(if discard { files.discarding() } else { files })
}

pub fn run(store: &Store, command: FileCommand, output: &Output) -> Result<(), Failure> {
    match command {
        FileCommand::Put { name, file, expected, if_absent, expires, expires_at, discard, domain } => {
            check(&name)?;
            let expect = match expected.if_digest {
                Some(digest) => ExpectNamed::Is(digest),
                None if if_absent => ExpectNamed::Absent,
                None => ExpectNamed::Any,
            };
            let mut put = PutNamed::new().expect(expect);
            if let Some(time) = expires {
                put = put.expires_after(time);
            }
            if let Some(time) = expires_at {
                put = put.expires_at(time);
            }
            let files = files(store, domain, discard)?;
            let written = if is_standard_input(&file) {
                files.put_reader(&name, io::stdin().lock(), put)?
            } else {
                let opened = File::open(&file).map_err(at(&file))?;
                let progress = output.bytes(opened.metadata().map_err(at(&file))?.len());
                let written = files.put_reader(&name, progress.wrap_read(opened), put)?;
                progress.finish_and_clear();
                written
            };
            let replaced = written.replaced.map(|digest| digest.to_string());
            let document = document(&written.file, Some(replaced.as_deref()));
            let replaced = replaced.map_or_else(String::new, |digest| format!(", replaced {digest}"));
            output.print(&document, &format!("{}  {}{replaced}", written.file.digest, escaped(&name)));
        }
        FileCommand::Get { name, output: to, domain } => get(&files(store, domain, false)?, &name, &to, output)?,
        FileCommand::Ls { prefix, domain } => {
            for file in files(store, domain, false)?.iter(&prefix) {
                let file = file?;
                let due = if file.is_expired { ", expired" } else { "" };
                output.row(&document(&file, None), || {
                    format!("{:<40} {:>12} {}{due}", escaped(&file.name), file.len, file.digest)
                });
            }
        }
        FileCommand::Rm { names, prefix, expected, discard, domain } => {
            let files = files(store, domain, discard)?;
            let removed = match expected.if_digest {
                Some(_) if prefix || names.len() > 1 => {
                    return Err(Failure::Usage("--if-digest takes one name".into()));
                }
                _ if prefix => {
                    let removed = names.iter().map(|prefix| files.remove_prefix(prefix).map(|done| done.removed));
                    removed.sum::<Result<u64, Error>>()?
                }
                expected => {
                    let expect = expected.map_or(ExpectNamed::Any, ExpectNamed::Is);
                    for name in &names {
                        check(name)?;
                        files.remove(name, expect)?;
                    }
                    names.len() as u64
                }
            };
            output.print(&json!({ "removed": removed }), "");
        }
    }
    Ok(())
}

/// Refuses the names of parts of an import, which come and go with that.
fn check(name: &str) -> Result<(), Failure> {
    match import_of_part(name) {
        Some(_) => Err(Failure::Document(format!("{name:?} is the name of a part of an import: remove the import"))),
        None => Ok(()),
    }
}

fn get(files: &NamedFiles, name: &str, to: &Path, output: &Output) -> Result<(), Failure> {
    let found = files.get(name)?;
    if is_standard_input(to) {
        let standard_output = Path::new("standard output");
        return match copy(&found.blob, &mut io::stdout().lock(), standard_output, &ProgressBar::hidden()) {
            // The reader has seen enough, as `head` has.
            Err(Failure::File(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other,
        };
    }
    let mut file = File::create_new(to).map_err(at(to))?;
    let progress = output.bytes(found.blob.len());
    copy(&found.blob, &mut file, to, &progress).inspect_err(|_| {
        let _ = std::fs::remove_file(to); // half a file is worse than none
    })?;
    progress.finish_and_clear();
    output.print(&document(&found.file, None), "");
    Ok(())
}

/// What is told of a file, and of what a write has replaced.
fn document(file: &NamedFile, replaced: Option<Option<&str>>) -> Value {
    let expires_in = match file.expires {
        Expires::After(left) => Some(left.as_secs()),
        _ => None,
    };
    let expires_at = match file.expires {
        Expires::At(time) => time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs()),
        _ => None,
    };
    let mut document = json!({
        "name": file.name, "digest": file.digest.to_string(), "bytes": file.len, "references": file.references.len(),
        "created_ms": file.created_ms, "modified_ms": file.modified_ms, "expires_in_seconds": expires_in,
        "expires_at": expires_at, "expired": file.is_expired,
    });
    if let (Some(replaced), Some(fields)) = (replaced, document.as_object_mut()) {
        fields.insert("replaced".into(), json!(replaced));
    }
    document
}
