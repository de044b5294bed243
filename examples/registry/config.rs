//! The command line.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::http::{Creation, Indexes, connections::Limits};

/// An OCI registry in one process and one directory, on the embedded store `strongroom`.
///
/// It has neither TLS nor authentication: let it listen on the loopback address, as it does by default, or put a proxy in front
/// of it that has both. Clients may push, pull and delete everything. RUST_LOG sets what is logged: `info` by default, with one
/// line a request. GET /metrics gives numbers for Prometheus, GET /healthz tells whether it can write.
///
/// SIGTERM and SIGINT end it: what is under way is finished, then the store is closed. Being killed loses nothing that was
/// acknowledged.
#[derive(Debug, clap::Parser)]
#[command(name = "registry")]
pub struct Arguments {
    /// The store's directory. Created if there is none.
    #[arg(long, value_name = "DIR", default_value = "registry-data")]
    pub data: PathBuf,

    /// Where to listen for HTTP/1.1.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, 5000)))]
    pub listen: SocketAddr,

    /// Pushing to a repository that does not exist is refused, instead of creating it.
    #[arg(long)]
    no_create: bool,

    /// Indexes may be pushed that list manifests which are not there.
    #[arg(long)]
    sparse: bool,

    /// How many connections are served at once; others wait.
    #[arg(long, value_name = "COUNT", default_value_t = 512)]
    connections: u16,

    /// For how many seconds requests under way may go on once the registry was told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

impl Arguments {
    pub fn creation(&self) -> Creation {
        if self.no_create { Creation::Never } else { Creation::OnPush }
    }

    pub fn indexes(&self) -> Indexes {
        if self.sparse { Indexes::Sparse } else { Indexes::Whole }
    }

    pub fn limits(&self) -> Limits {
        Limits { connections: self.connections.max(1).into(), grace: Duration::from_secs(self.grace) }
    }
}
