//! An OCI registry over one store: `cargo run --release --example registry`, then `docker push 127.0.0.1:5000/name`.
//!
//! It speaks the whole of the OCI distribution specification 1.1. All rules are the crate's: what is here turns requests into
//! calls, and results into answers. [`http`] is the door; `docs/embedding.md` explains the calls.

#![allow(unreachable_pub, reason = "a program has no outside")]

mod config;
mod http;

use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use strongroom::Options;
use strongroom::tokio::AsyncStore;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::Arguments;
use crate::http::{Registry, connections, router};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    log.with_ansi(std::io::stderr().is_terminal()).init();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the registry has failed");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let mut options = arguments.collection(Options::new().create(true));
    if let Some(key) = arguments.key()? {
        options = options.key_provider(key);
    }
    let store = options.open(&arguments.data)?;
    let encrypted = store.is_encrypted();
    let store = AsyncStore::new(store);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(arguments.listen).await?;
        let (data, address) = (arguments.data.display(), listener.local_addr()?);
        tracing::info!(%data, %address, encrypted, "listening");
        let stop = stop_signal()?;
        let registry = Arc::new(Registry::new(store.clone(), arguments.creation(), arguments.indexes()));
        connections::serve(listener, router(registry), arguments.limits(), stop).await;
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
