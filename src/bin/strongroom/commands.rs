//! The commands and their arguments.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use clap::{Parser, Subcommand, ValueEnum};
use indicatif::ProgressBar;
use serde_json::json;
use strongroom::registry::RepositoryName;
use strongroom::transfer::{Existing, HeldBlobs, NewPin, SpecialBits, check_space};
use strongroom::{Algorithm, Blob, Digest, Error, Options, PutNamed, Store};

use crate::backup::{Backup, Restore};
use crate::collect::Collect;
use crate::encryption::{self, DomainCommand, KeyCommand};
use crate::failure::{Failure, at};
use crate::files::{self, FileCommand};
use crate::keys::{KeyOptions, KeySource};
use crate::lifecycle::{self, LifecycleCommand};
use crate::output::{Output, shown, size};
use crate::salvage::How;
use crate::units::{duration, rate};
use crate::{backup, check, collect, pins, salvage, transfer};

/// A content-addressable store in a directory.
#[derive(Debug, Parser)]
#[command(version, about, long_about = None)]
pub struct Arguments {
    /// The store's directory.
    #[arg(long, global = true, env = "STRONGROOM_DATA", default_value = "strongroom-data")]
    data: PathBuf,
    /// Print one JSON document instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// How long to wait for another process that has the store open to close it.
    #[arg(long, global = true, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait_lock: Duration,
    #[command(flatten)]
    key: KeyOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a store.
    Init {
        /// Encrypt it, with the key that is given. A key file that does not exist is made.
        #[arg(long)]
        encrypt: bool,
    },
    /// Encrypt an existing store with the key that is given. Continues after an interruption.
    ///
    /// A key file that does not exist is made.
    Encrypt,
    /// List, renew and rewrap the keys of an encrypted store.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Create, list and destroy key domains, the parts of an encrypted store with keys of their own.
    #[command(subcommand)]
    Domain(DomainCommand),
    /// Store files (`-` for standard input) and print their digests.
    Put {
        /// The files.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The digest algorithm.
        #[arg(long, value_enum, default_value_t = Named::Sha256)]
        algorithm: Named,
        /// Pin the one file under this name.
        #[arg(long)]
        pin: Option<String>,
        /// Replace a pin that has the name already.
        #[arg(long, requires = "pin")]
        replace: bool,
    },
    /// Write a blob to a file.
    Get {
        /// A digest or the name of a pin.
        blob: String,
        /// The file, which must not exist.
        output: PathBuf,
    },
    /// Write a blob to standard output.
    Cat {
        /// A digest or the name of a pin.
        blob: String,
    },
    /// List pins, or all blobs.
    Ls {
        /// List blobs.
        #[arg(long)]
        blobs: bool,
    },
    /// Tell what is known of a blob, or, without one, of the store.
    Stat {
        /// A digest or the name of a pin.
        blob: Option<String>,
    },
    /// Remove an unreferenced blob, or a pin.
    Rm {
        /// A digest or the name of a pin.
        blob: String,
        /// With a pin: also remove the blobs that only it references.
        #[arg(long)]
        blobs: bool,
    },
    /// Name a blob, and so keep it.
    Pin {
        /// The name.
        name: String,
        /// The blob's digest.
        digest: Digest,
        /// Expire the pin after this time, counted only while the store is open.
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        expires: Option<Duration>,
        /// Replace a pin that has the name already.
        #[arg(long)]
        replace: bool,
    },
    /// Put, read, list and remove named files: content under names that can be replaced. A pin is one of them.
    #[command(subcommand)]
    File(FileCommand),
    /// Collect garbage: remove unreferenced blobs whose grace period is over, and compact files that are mostly dead.
    Gc(Collect),
    /// See what a lifecycle policy does to a repository's images, or do it.
    #[command(subcommand)]
    Lifecycle(LifecycleCommand),
    /// Make a consistent copy of the store, also while another process has it open: by links where possible.
    Backup(Backup),
    /// Make a store of a backup, with copies of its files, and read all of it.
    Restore(Restore),
    /// Read all content, compare it with its digests, and recount reference counts.
    Verify,
    /// Read all content, flag damaged blobs, and list what they affect. Continues an interrupted scrub.
    ///
    /// A push of the same content repairs a flagged blob.
    Scrub {
        /// Read at most so many bytes a second, such as 50M.
        #[arg(long, value_name = "SIZE", value_parser = rate)]
        rate: Option<u64>,
        /// Start from the beginning, even if the last scrub was interrupted.
        #[arg(long)]
        restart: bool,
    },
    /// Check a store that no other process uses, and list what is wrong with it, also where it can't be opened.
    Fsck {
        /// Rebuild reference counts and indexes, then scrub.
        #[arg(long)]
        repair: bool,
        /// If the log is damaged, so that the store does not open: keep all up to the damage and what content can be
        /// read behind it, cut the rest, and list what may be missing. Copies what it cuts to the directory `salvage`.
        #[arg(long, conflicts_with = "repair")]
        salvage: bool,
        /// With --salvage: only report what it would do.
        #[arg(long, requires = "salvage")]
        dry_run: bool,
        /// With --salvage: keep no copy of what is cut.
        #[arg(long, requires = "salvage")]
        no_copies: bool,
    },
    /// Store a folder, or an OCI image layout, as a pinned document that holds its blobs; or fill repositories.
    ///
    /// Links are stored as links; an image layout has none. What is neither a file, a directory nor a link, and what is
    /// replaced while it is read, is left out.
    ///
    /// Into repositories, what is missing or damaged in the folder is left out and reported. The exit code is 4 then,
    /// and 0 where files that are not part of the layout, or unfinished uploads, are all that was left out.
    Import {
        /// The folder.
        #[arg(value_name = "FOLDER")]
        folder: PathBuf,
        /// What the folder is: `distribution` for the storage directory of the registry of that name (registry:2,
        /// registry:3), of which all repositories are imported. Repeat it to continue, or to bring what is new.
        #[arg(long, value_enum, conflicts_with_all = ["name", "replace", "repository"])]
        from: Option<Foreign>,
        /// Push the image layout, with its tags, to this repository, which is created if it does not exist.
        #[arg(long, conflicts_with_all = ["name", "replace"])]
        repository: Option<RepositoryName>,
        /// The pin's name; the folder's by default.
        #[arg(long)]
        name: Option<String>,
        /// Replace a pin that has the name already.
        #[arg(long)]
        replace: bool,
    },
    /// Write what was imported under a name, a repository, or everything to a new folder.
    ///
    /// Of repositories, and of everything, what is damaged is left out and reported. The exit code is 4 then.
    Export {
        /// The pin's name, unless --repository or --all is given, and the folder, which must not exist or be empty.
        #[arg(value_names = ["NAME", "FOLDER"], num_args = 1..=2, required = true)]
        what: Vec<PathBuf>,
        /// Write a repository as an image layout.
        #[arg(long, conflicts_with = "all")]
        repository: Option<RepositoryName>,
        /// Write all blobs as plain files, all repositories as image layouts, and named files as a list.
        #[arg(long)]
        all: bool,
        /// Also set the set-user-ID, set-group-ID and sticky bits: only for documents from a source that you trust.
        #[arg(long)]
        special_bits: bool,
    },
}

impl Command {
    /// Whether it changes nothing in a store.
    fn only_reads(&self) -> bool {
        let lists = matches!(self, Self::Ls { .. } | Self::Key(KeyCommand::List) | Self::Domain(DomainCommand::List));
        let reads = matches!(self, Self::Get { .. } | Self::Cat { .. } | Self::Export { .. } | Self::Verify);
        lists
            || reads
            || matches!(self, Self::Lifecycle(LifecycleCommand::Preview(_)))
            || matches!(self, Self::Stat { .. } | Self::File(FileCommand::Get { .. } | FileCommand::Ls { .. }))
    }
}

/// Whose directory is imported.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Foreign {
    Distribution,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Named {
    Sha256,
    Sha512,
    Blake3,
}

impl From<Named> for Algorithm {
    fn from(named: Named) -> Self {
        match named {
            Named::Sha256 => Self::Sha256,
            Named::Sha512 => Self::Sha512,
            Named::Blake3 => Self::Blake3,
        }
    }
}

/// Runs a command.
pub fn run(arguments: Arguments) -> Result<(), Failure> {
    let output = Output::new(arguments.json);
    let data = arguments.data;
    let access = Access { key: arguments.key.source()?, wait: arguments.wait_lock };
    match arguments.command {
        Command::Init { encrypt } => encryption::init(&data, encrypt, &access, &output)?,
        Command::Encrypt => encryption::encrypt(&data, &access, &output)?,
        Command::Backup(with) => backup::backup(&data, &access, &with, &output)?,
        Command::Restore(with) => backup::restore(&access, &with, &output)?,
        Command::Gc(with) => collect::collect(&data, &access, &with, &output)?,
        Command::Fsck { salvage: true, dry_run, no_copies, .. } => {
            salvage::salvage(&data, &access, How { dry_run, copies: !no_copies }, &output)?;
        }
        Command::Fsck { repair, .. } => check::fsck(&data, &access, repair, &output)?,
        with_store => {
            let only_reads = with_store.only_reads();
            // Beside whoever has it open, a registry for one.
            let store = access.options()?.read_only(only_reads).open(&data)?;
            command(&store, &data, with_store, &output)?;
            let closed = store.close();
            if only_reads { after_reading(closed)? } else { closed? }
        }
    }
    output.finish().map_err(at(Path::new("standard output")))
}

/// How the store is opened.
#[derive(Debug)]
pub struct Access {
    pub key: Option<KeySource>,
    /// How long to wait for the lock.
    pub wait: Duration,
}

impl Access {
    /// Opens the store.
    pub fn open(&self, data: &Path) -> Result<Store, Failure> {
        Ok(self.options()?.open(data)?)
    }

    /// The default options, with the key that is given.
    pub fn options(&self) -> Result<Options, Failure> {
        let options = self.without_key();
        Ok(match &self.key {
            Some(source) => options.key_provider(source.existing()?),
            None => options,
        })
    }

    /// The default options.
    pub fn without_key(&self) -> Options {
        Options::new().wait_for_lock(self.wait)
    }
}

/// What a command makes of how closing went after it has only read: a full disk takes nothing from what it has told.
pub fn after_reading(closed: Result<(), Error>) -> Result<(), Failure> {
    match closed {
        Err(Error::Full { .. }) => Ok(()),
        other => Ok(other?),
    }
}

fn command(store: &Store, data: &Path, command: Command, output: &Output) -> Result<(), Failure> {
    match command {
        // They open it themselves.
        Command::Init { .. } | Command::Encrypt | Command::Gc(_) | Command::Fsck { .. } => {}
        Command::Backup(_) | Command::Restore(_) => {}
        Command::Key(command) => encryption::key(store, data, command, output)?,
        Command::Domain(command) => encryption::domain(store, command, output)?,
        Command::Put { files, algorithm, pin, replace } => {
            if pin.is_some() && files.len() > 1 {
                return Err(Failure::Usage("--pin takes one file".into()));
            }
            let pin = pin.map(|name| NewPin::new(store, &name, existing(replace))).transpose()?;
            put(store, &files, algorithm.into(), pin, output)?;
        }
        Command::Get { blob, output: to } => {
            let blob = store.get(&resolve(store, &blob)?)?;
            let mut file = fs::File::create_new(&to).map_err(at(&to))?;
            let progress = output.bytes(blob.len());
            copy(&blob, &mut file, &to, &progress).inspect_err(|_| {
                let _ = fs::remove_file(&to); // half a blob is worse than none
            })?;
            progress.finish_and_clear();
            output.print(&json!({ "digest": blob.digest().to_string(), "bytes": blob.len() }), "");
        }
        Command::Cat { blob } => {
            let blob = store.get(&resolve(store, &blob)?)?;
            let standard_output = Path::new("standard output");
            match copy(&blob, &mut io::stdout().lock(), standard_output, &ProgressBar::hidden()) {
                // The reader has seen enough, as `head` has.
                Err(Failure::File(_, error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
                other => other?,
            }
        }
        Command::Ls { blobs: false } => pins::list(store, output)?,
        Command::Ls { blobs: true } => {
            for stat in store.blobs() {
                let stat = stat?;
                output.row(&stat_json(&stat), || format!("{} {:>12} {:>4}", stat.digest, stat.len, stat.references));
            }
        }
        Command::Stat { blob: Some(blob) } => {
            let stat = store.stat(&resolve(store, &blob)?)?;
            let text = format!(
                "{}\nlength      {}\non disk     {}\nreferences  {}\nstored      {}",
                stat.digest,
                stat.len,
                stat.stored_len,
                stat.references,
                humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(stat.stored_ms)),
            );
            output.print(&stat_json(&stat), &text);
        }
        Command::Stat { blob: None } => {
            let usage = store.usage()?;
            let document = json!({
                "blobs": usage.blobs, "live_bytes": usage.live_bytes, "dead_bytes": usage.dead_bytes,
                "segments": usage.segments, "run_bytes": usage.run_bytes,
            });
            let text = format!(
                "blobs     {}\nlive      {}\ndead      {}\nsegments  {}\nruns      {}",
                usage.blobs,
                size(usage.live_bytes),
                size(usage.dead_bytes),
                usage.segments,
                size(usage.run_bytes)
            );
            output.print(&document, &text);
        }
        Command::Rm { blob, blobs } => rm(store, &blob, blobs, output)?,
        Command::Pin { name, digest, expires, replace } => {
            let options = match expires {
                Some(time) => PutNamed::new().expires_after(time),
                None => PutNamed::new(),
            };
            let replaced = NewPin::new(store, &name, existing(replace))?.set(&digest, options)?;
            let replaced = replaced.map(|digest| digest.to_string());
            let document = json!({ "name": name, "digest": digest.to_string(), "replaced": replaced });
            output.print(&document, &replaced.map_or_else(String::new, |digest| format!("replaced {digest}")));
        }
        Command::File(command) => files::run(store, command, output)?,
        Command::Lifecycle(command) => lifecycle::run(store, command, output)?,
        Command::Verify => check::verify(store, output)?,
        Command::Scrub { rate, restart } => check::scrub(store, rate, restart, output)?,
        Command::Import { folder, from: Some(Foreign::Distribution), .. } => {
            transfer::import_distribution(store, &folder, output)?;
        }
        Command::Import { folder, repository: Some(repository), .. } => {
            transfer::import_layout(store, &folder, &repository, output)?;
        }
        Command::Import { folder, name, replace, .. } => {
            let name = name.map_or_else(|| folder_name(&folder), Ok)?;
            transfer::import(store, &folder, &name, existing(replace), output)?;
        }
        Command::Export { what, repository, all, special_bits } => {
            let bits = if special_bits { SpecialBits::Set } else { SpecialBits::Drop };
            match (&what[..], repository) {
                ([to], Some(repository)) => transfer::export_repository(store, &repository, to, output)?,
                ([to], None) if all => transfer::export_all(store, to, output)?,
                ([name, to], None) if !all => transfer::export(store, &name.to_string_lossy(), to, bits, output)?,
                _ => {
                    let usage = "export takes a name and a folder; with --repository or --all, a folder alone";
                    return Err(Failure::Usage(usage.into()));
                }
            }
        }
    }
    Ok(())
}

/// The digest that a text is, or the one that the pin of that name has.
fn resolve(store: &Store, text: &str) -> Result<Digest, Failure> {
    match text.parse() {
        Ok(digest) => Ok(digest),
        Err(invalid) => match store.named().stat(text) {
            Ok(pin) => Ok(pin.digest),
            Err(Error::NamedNotFound { .. }) if text.contains(':') => Err(invalid.into()),
            Err(error) => Err(error.into()),
        },
    }
}

/// Writes a blob's content to its end. What fails is the store inside of the I/O error, or the file.
pub fn copy(blob: &Blob, to: &mut impl io::Write, path: &Path, progress: &ProgressBar) -> Result<(), Failure> {
    let copied = io::copy(&mut progress.wrap_read(blob.reader()), to).and_then(|_| to.flush());
    copied.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => Failure::Store(error),
        Err(error) => at(path)(error),
    })
}

fn existing(replace: bool) -> Existing {
    if replace { Existing::Replace } else { Existing::Refuse }
}

fn put(
    store: &Store,
    files: &[PathBuf],
    algorithm: Algorithm,
    mut pin: Option<NewPin<'_>>,
    output: &Output,
) -> Result<(), Failure> {
    for path in files.iter().filter(|path| !is_standard_input(path)) {
        // What can't be opened is told when its turn has come.
        if let Ok(metadata) = fs::metadata(path)
            && metadata.is_file()
        {
            check_space(store, path, metadata.len())?;
        }
    }
    for path in files {
        let digest = if is_standard_input(path) {
            store.put_reader(io::stdin().lock(), algorithm)?.digest
        } else {
            let file = fs::File::open(path).map_err(at(path))?;
            let progress = output.bytes(file.metadata().map_err(at(path))?.len());
            let digest = store.put_reader(progress.wrap_read(file), algorithm)?.digest;
            progress.finish_and_clear();
            digest
        };
        let replaced = pin.take().map_or(Ok(None), |pin| pin.set(&digest, PutNamed::new()))?;
        let replaced = replaced.map(|digest| digest.to_string());
        let document = json!({ "digest": digest.to_string(), "file": path.to_string_lossy(), "replaced": replaced });
        output.row(&document, || {
            let replaced = replaced.map_or_else(String::new, |digest| format!(", replaced {digest}"));
            format!("{digest}  {}{replaced}", shown(path))
        });
    }
    Ok(())
}

pub fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn stat_json(stat: &strongroom::Stat) -> serde_json::Value {
    json!({
        "digest": stat.digest.to_string(), "bytes": stat.len, "stored_bytes": stat.stored_len,
        "references": stat.references, "stored_ms": stat.stored_ms,
        "relied_on_seconds_ago": stat.relied_on.map(|time| time.as_secs()),
    })
}

fn folder_name(path: &Path) -> Result<String, Failure> {
    let whole = path.canonicalize().map_err(at(path))?;
    Ok(whole.file_name().map_or_else(|| "root".into(), |name| name.to_string_lossy().into_owned()))
}

fn rm(store: &Store, text: &str, blobs: bool, output: &Output) -> Result<(), Failure> {
    let blobs = if blobs { HeldBlobs::Remove } else { HeldBlobs::Keep };
    let Ok(digest) = text.parse() else { return pins::remove(store, text, blobs, output) };
    match store.remove(&digest) {
        // Earlier versions let a pin have such a name.
        Err(Error::BlobNotFound { .. } | Error::BlobInUse { .. }) if store.named().stat(text).is_ok() => {
            return pins::remove(store, text, blobs, output);
        }
        other => drop(other?),
    }
    output.print(&json!({ "removed": digest.to_string() }), "");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_full_on_closing_fails_no_command_that_only_reads() {
        let path = PathBuf::from("log");
        assert!(after_reading(Err(Error::Full { path: path.clone() })).is_ok());
        assert!(after_reading(Err(Error::Locked { path })).is_err());
        for (arguments, expected) in [
            (&["cat", "it"][..], true),
            (&["get", "it", "to"], true),
            (&["export", "it", "to"], true),
            (&["ls"], true),
            (&["stat"], true),
            (&["file", "get", "it"], true),
            (&["file", "put", "it", "from"], false),
            (&["lifecycle", "preview", "app"], true),
            (&["lifecycle", "apply", "app"], false),
            (&["verify"], true),
            (&["key", "list"], true),
            (&["domain", "list"], true),
            (&["key", "rotate"], false),
            (&["put", "file"], false),
            (&["rm", "it"], false),
            (&["import", "from"], false),
        ] {
            let parsed = Arguments::parse_from([&["strongroom"], arguments].concat());
            assert_eq!(parsed.command.only_reads(), expected, "{arguments:?}");
        }
    }
}
