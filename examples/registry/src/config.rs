//! The command line.

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::uri::Authority;
use strongroom::keys::{KeyError, KeyProvider, LocalKey, Passphrase};
use strongroom::{CollectOptions, Options, Store};
use zeroize::Zeroizing;

use crate::auth::Auth;
use crate::auth::command::Command;
use crate::auth::token::TokenKey;
use crate::http::limits::Limits;
use crate::http::{Admission, Creation, Indexes, Settings};
use crate::lifecycle::{self, Language};

/// An OCI registry in one process and one directory, on the embedded store `strongroom`.
///
/// Without --credentials, clients may push, pull and delete everything: let it listen on the loopback address, as it
/// does by default. With them, users log in with access keys, as with AWS, and policies say what each may do; the
/// commands below change the file. It has no TLS: put a proxy in front of it that has.
///
/// RUST_LOG sets what is logged: `info` by default, with one line a request. GET /metrics gives numbers for Prometheus,
/// GET /healthz tells whether it can write.
///
/// SIGTERM and SIGINT end it: what is under way is finished, then the store is closed. Being killed loses nothing that
/// was acknowledged.
#[derive(Debug, clap::Parser)]
#[command(name = "registry")]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// The file with users, their keys and policies. `registry user add` makes one. It is read again when it changes.
    #[arg(long, global = true, value_name = "FILE")]
    pub credentials: Option<PathBuf>,

    /// The URL at which clients reach the registry, such as `https://registry.example.com`. With one they are asked for
    /// bearer tokens, which they get there: by those docker pulls public repositories without logging in.
    #[arg(long, value_name = "URL", value_parser = url)]
    url: Option<String>,

    /// The store's directory. Created if there is none.
    #[arg(long, value_name = "DIR", default_value = "registry-data")]
    pub data: PathBuf,

    /// A file with the key of an encrypted store: 32 random bytes or 64 hex digits. If there is no store, an encrypted
    /// one is created. Keep the file elsewhere than the store, and a copy of it: without it, the store is lost.
    #[arg(long, value_name = "FILE", group = "key")]
    key_file: Option<PathBuf>,

    /// An environment variable with the key, 64 hex digits, instead of a file.
    #[arg(long, value_name = "VARIABLE", group = "key")]
    key_env: Option<String>,

    /// A file with a passphrase, in one line, instead of a key.
    #[arg(long, value_name = "FILE", group = "key")]
    passphrase_file: Option<PathBuf>,

    /// Where to listen for HTTP/1.1.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)))]
    pub listen: SocketAddr,

    /// Refuse pushes to repositories that do not exist, instead of creating those.
    #[arg(long)]
    no_create: bool,

    /// Accept indexes that list manifests which the repository does not have.
    #[arg(long)]
    sparse: bool,

    /// How long to wait for another process that has the store open to close it.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = duration)]
    wait_lock: Duration,

    /// Grace period for blobs that no manifest references, after they were pushed or asked for with HEAD, and for idle
    /// uploads. It has to be longer than the longest push takes.
    #[arg(long, value_name = "DURATION", default_value = "24h", value_parser = duration)]
    retention: Duration,

    /// How often garbage is collected; 0: never.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    collect_every: Duration,

    /// The most bytes that compaction writes in a second.
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = bytes::<u64>)]
    collect_rate: u64,

    /// How often lifecycle policies are carried out; 0: never.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration)]
    lifecycle_every: Duration,

    /// The share of a repository's images, in percent, on which a lifecycle policy acts without a preview having shown
    /// it; 100: whatever it says.
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100))]
    lifecycle_max_percent: u8,

    /// Take lifecycle policies that say what Amazon ECR's can't: expiry by the last pull, tags as a sign of life, rules
    /// for artifact types.
    #[arg(long)]
    lifecycle_extensions: bool,

    /// How many connections are served at once. Beyond that, one that is idle or does not progress is closed for a new
    /// one, or else the new one is answered 503; probes (/healthz, /metrics) are served all the same.
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    connections: u16,

    /// How many of them one client may have: an address, of IPv6 a network of 64 bits. Half of them by default.
    #[arg(long, value_name = "COUNT")]
    connections_per_client: Option<u16>,

    /// The address of a proxy that passes requests on: many clients, of which the last of `X-Forwarded-For` is the one
    /// that asks.
    #[arg(long, value_name = "ADDRESS")]
    proxy: Vec<IpAddr>,

    /// A name, with its port, under which the registry is reached. If any are given, requests for others are refused: a
    /// page in a browser on this machine could otherwise reach the registry by a name that its author makes point to
    /// it.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,

    /// An origin, such as `https://ui.example.com`, whose pages may read and write. Others may not write.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// For how long a client may not go on with a body that it sends, or with an answer that it reads. It has to make
    /// up for it.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = duration)]
    idle: Duration,

    /// How many bytes a second a client has to send, or to read, in the long run.
    #[arg(long, value_name = "SIZE", default_value = "4KiB", value_parser = bytes::<u32>)]
    slowest: u32,

    /// How many bytes of bodies and answers are held in memory.
    #[arg(long, value_name = "SIZE", default_value = "96MiB", value_parser = bytes::<usize>)]
    memory: usize,

    /// For how long requests under way may go on once the registry was told to stop.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration)]
    grace: Duration,
}

/// A duration as people write it: `90s`, `24h`.
fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}: try 90s or 24h"))
}

/// A number of bytes as people write it: `64MiB`, `50M`, where K, M and G are powers of 1024.
fn bytes<N: TryFrom<u64>>(text: &str) -> Result<N, String> {
    let parsed = parse_size::Config::new().with_binary().parse_size(text);
    let bytes = parsed.map_err(|error| format!("{error}: try 64MiB or a number of bytes"))?;
    N::try_from(bytes).map_err(|_| "it is more than can be counted: try 64MiB".to_owned())
}

/// Where a registry is reached: a scheme and a host.
fn url(text: &str) -> Result<String, String> {
    let authority = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let authority = authority.map(|rest| rest.strip_suffix('/').unwrap_or(rest));
    let parsed = authority.and_then(|authority| authority.parse::<Authority>().ok());
    match parsed {
        Some(authority) if !authority.as_str().contains('@') => Ok(text.to_owned()),
        _ => Err("try https://registry.example.com".to_owned()),
    }
}

/// How many bytes of facts are held in memory before they are written out.
const MEMTABLE: usize = 16 << 20;

impl Arguments {
    /// The key that was given, if one was; clap sees to it that there is one at most.
    pub fn key(&self) -> Result<Option<Arc<dyn KeyProvider>>, KeyError> {
        Ok(if let Some(path) = &self.key_file {
            Some(Arc::new(LocalKey::from_file(path)?))
        } else if let Some(variable) = &self.key_env {
            Some(Arc::new(LocalKey::from_env(variable)?))
        } else if let Some(path) = &self.passphrase_file {
            Some(Arc::new(passphrase(path)?))
        } else {
            None
        })
    }

    /// Options of the store: how it is opened, and how it collects.
    pub fn options(&self) -> Options {
        let options = Options::new().create(true).wait_for_lock(self.wait_lock);
        // Four of them may be in memory for a while.
        let options = options.retention(self.retention).memtable_size(MEMTABLE);
        if self.collect_every.is_zero() {
            return options;
        }
        let gently = CollectOptions::new().bytes_per_second(self.collect_rate);
        options.collect_every(self.collect_every, gently)
    }

    /// Who may log in, with tokens that the store has the key of.
    pub fn auth(&self, store: &Store) -> Result<Auth, Box<dyn std::error::Error>> {
        let tokens = TokenKey::of_store(store)?;
        let auth = match &self.credentials {
            Some(path) => Auth::of_file(path, tokens)?,
            None => Auth::open(tokens),
        };
        Ok(auth.at(self.url.clone()))
    }

    /// How the registry behaves, where so many files may be open. Each connection takes one, and one of the store's,
    /// which needs others too.
    pub fn settings(&self, files: usize, auth: Auth) -> Settings {
        let most = (files.saturating_sub(32) / 4).max(2);
        let refusals = Limits::default().refusals.min(most.div_ceil(8));
        let connections = usize::from(self.connections.max(1)).min(most - refusals);
        if connections < self.connections.into() {
            tracing::warn!(files, connections, "the limit on open files leaves room for fewer connections");
        }
        let per_client = self.connections_per_client.map_or(connections.div_ceil(2), usize::from);
        let limits = Limits {
            connections,
            refusals,
            connections_per_client: per_client.max(1),
            idle: self.idle.max(Duration::from_secs(1)),
            rate: self.slowest,
            memory: self.memory,
            grace: self.grace,
            ..Limits::default()
        };
        Settings {
            auth: Arc::new(auth),
            creation: if self.no_create { Creation::Never } else { Creation::OnPush },
            indexes: if self.sparse { Indexes::Sparse } else { Indexes::Whole },
            admission: Admission { hosts: self.host.clone(), origins: self.allow_origin.clone() },
            proxies: self.proxy.iter().map(IpAddr::to_canonical).collect(),
            limits,
            lifecycle: lifecycle::Settings {
                every: Some(self.lifecycle_every).filter(|every| !every.is_zero()),
                max_percent: self.lifecycle_max_percent,
                language: if self.lifecycle_extensions { Language::Extended } else { Language::Strict },
            },
            lost_lines: Arc::default(),
        }
    }
}

/// No more is read of a file with a passphrase, in bytes.
const MAX_PASSPHRASE: u64 = 64 << 10;

/// The passphrase in a file, without the end of its line.
fn passphrase(path: &Path) -> Result<Passphrase, KeyError> {
    let failed = |error: std::io::Error| KeyError::File { path: path.to_owned(), kind: error.kind() };
    let mut content = Zeroizing::new(Vec::new());
    fs::File::open(path).map_err(failed)?.take(MAX_PASSPHRASE).read_to_end(&mut content).map_err(failed)?;
    let line = content.strip_suffix(b"\n").unwrap_or(&content);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.contains(&b'\n') {
        return Err(KeyError::Invalid { reason: format!("{} should have the passphrase in one line", path.display()) });
    }
    Ok(Passphrase::new(line))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn a_command_is_taken_with_its_file_before_or_behind_it() {
        for line in ["registry --credentials f user add ci", "registry user add ci --credentials f"] {
            let given = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(given.command.is_some() && given.credentials.is_some());
        }
        assert!(Arguments::try_parse_from(["registry"]).unwrap().command.is_none());
    }

    #[test]
    fn durations_and_sizes_are_given_as_people_write_them() {
        let parse = |arguments: &[&str]| Arguments::try_parse_from([&["registry"], arguments].concat());
        let given =
            parse(&["--retention", "1h 30m", "--grace", "1500ms", "--memory", "1.5G", "--slowest", "2K"]).unwrap();
        assert_eq!((given.retention, given.grace), (Duration::from_secs(5400), Duration::from_millis(1500)));
        assert_eq!((given.memory, given.slowest, given.idle), (3 << 29, 2 << 10, Duration::from_secs(60)));
        assert_eq!(parse(&["--url", "https://r.example.com:5000"]).unwrap().url.unwrap(), "https://r.example.com:5000");
        for bad in [["--url", "r.example.com"], ["--url", "https://a/b"], ["--url", "https://a@b"]] {
            assert!(parse(&bad).unwrap_err().to_string().contains("try "));
        }
        for bad in [["--retention", "10"], ["--idle", "soon"], ["--memory", "lots"], ["--slowest", "8G"]] {
            let problem = parse(&bad).unwrap_err().to_string();
            assert!(problem.contains("try "), "{problem}");
        }
    }
}
