//! Connections: how many, how long they may take to ask, and how they end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// A connection on which no whole head of a request came for so long is closed, also if it waits for the next one.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// How many connections are served at once. Others wait in the system's queue.
    pub connections: usize,
    /// For how long requests under way may go on after `stop`.
    pub grace: Duration,
}

/// Serves until `stop`; then lets requests under way end, and cuts off those that take too long. Cutting a request off is safe:
/// what was answered stays, an upload stands where it got to.
pub async fn serve(listener: TcpListener, router: Router, limits: Limits, stop: impl Future<Output = ()>) {
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, accept(&listener).await)
        };
        let (slot, stream) = tokio::select! {
            () = &mut stop => break,
            accepted = accept => accepted,
        };
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
        let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        connections.spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection has failed");
            }
        });
        while connections.try_join_next().is_some() {} // lets go of those that have ended
    }
    drop(listener);
    tracing::info!(connections = connections.len(), "stopping");
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting off what takes too long");
    }
    connections.shutdown().await;
}

/// The next connection. Failures, as for want of file descriptors, pass.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true); // slower without, no more
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
