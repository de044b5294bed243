//! An OCI registry over one store: `cargo run --release -p strongroom-registry`, then
//! `docker push 127.0.0.1:5000/name`.
//!
//! How it begins and ends; what it serves is in [`strongroom_registry`].

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use strongroom::aio::{AsyncStore, Limits};
use strongroom_registry::auth::command::Command;
use strongroom_registry::config::Arguments;
use strongroom_registry::http::Settings;
use strongroom_registry::log::Log;
use strongroom_registry::server;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// How many reads and writes of content run at once.
const WRITES: u16 = 64;

/// How many calls of the store, and as many that only read: more than requests may make at once, so that probes need
/// not wait for those.
const CALLS: u16 = 96;

/// How many files the store keeps open.
const STORE_FILES: usize = 512;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(command) = &arguments.command {
        return change_credentials(command, arguments.credentials.as_deref());
    }
    give_memory_back();
    let Ok(log) = Log::begin() else { return ExitCode::FAILURE };
    let files = raise_file_limit();
    let code = match run(&arguments, &log, files) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the registry has failed");
            ExitCode::FAILURE
        }
    };
    log.end();
    code
}

fn change_credentials(command: &Command, credentials: Option<&Path>) -> ExitCode {
    let Some(credentials) = credentials else {
        eprintln!("registry: say which file it is about: --credentials FILE");
        return ExitCode::FAILURE;
    };
    match command.run(credentials, &mut std::io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registry: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Each connection, and each upload under way, takes a file descriptor: as many as the system lets the process have,
/// and how many that is.
fn raise_file_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit on open files");
    }
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(files).unwrap_or(usize::MAX)
}

/// How much that is free at its end each pool of the allocator keeps: as much as bodies that are received take. Where
/// it keeps less, the buffers of each piece are new pages: of 4 KiB, 33,000 a GB that is pushed.
#[cfg(target_env = "gnu")]
const KEPT_FREE: i32 = 2 << 20;

/// Has the allocator of the GNU C library give long buffers back to the system when they are freed, and keep few pools:
/// by default it keeps what it was once asked for, in as many as there were threads that asked.
fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    #[expect(unsafe_code, reason = "the allocator is told by a call")]
    // SAFETY: the call takes numbers, and there is no other thread yet that it could be in the way of.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
        libc::mallopt(libc::M_ARENA_MAX, 4);
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT_FREE);
    }
}

fn run(arguments: &Arguments, log: &Log, files: usize) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = arguments.options().max_open_files(STORE_FILES.min(files / 4));
    if let Some(key) = arguments.key()? {
        options = options.key_provider(key);
    }
    let store = options.open(&arguments.data)?;
    let encrypted = store.is_encrypted();
    for domain in store.locked_domains() {
        tracing::warn!(domain = domain.number, error = %domain.error, "a key domain is locked");
    }
    let auth = arguments.auth(&store)?;
    if auth.is_open() && !arguments.listen.ip().is_loopback() {
        tracing::warn!("anybody who reaches the registry may push, pull and delete: --credentials restricts that");
    }
    let settings = Settings { lost_lines: log.lost(), ..arguments.settings(files, auth) };
    let store = AsyncStore::with_limits(store, Limits::new().calls(CALLS).reads(CALLS).writes(WRITES));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listen = arguments.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|error| format!("cannot listen on {listen}: {error}"))?;
        let (data, address) = (arguments.data.display(), listener.local_addr()?);
        tracing::info!(%data, %address, encrypted, "listening");
        let stop = stop_signal()?;
        server::serve(store.clone(), settings, listener, stop).await;
        store.close().await?;
        tracing::info!("the store is closed");
        Ok(())
    })
}

/// Ends with the first SIGTERM or SIGINT.
fn stop_signal() -> std::io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
