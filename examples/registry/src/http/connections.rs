//! Connections: how many, whose, and how they end.
//!
//! A new connection gets a place if there is one, both among all connections and in its client's share; there is always
//! one more share than there are clients. If there is none, a connection whose client keeps the registry waiting is
//! closed, first one of the client with most connections. If there is no such connection, the new one is answered 503,
//! and served if it is a probe.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};

use super::clock;
use super::limits::{BUFFER, Limits};
use super::patience::Patience;
use super::peer::{Client, Peer};
use super::transport::Watched;

/// The connections that there are.
#[derive(Debug, Default)]
pub struct Places(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    /// Those that have a place, and those that are told that there is none.
    connections: HashMap<u64, Connection>,
    last: u64,
}

#[derive(Debug)]
struct Connection {
    peer: Arc<Peer>,
    /// None until it is served.
    task: Option<AbortHandle>,
}

/// How many places each client has that is no proxy.
#[derive(Debug, Default)]
struct Counts(HashMap<Client, usize>);

impl Counts {
    fn of(&self, client: Client) -> usize {
        self.0.get(&client).copied().unwrap_or(0)
    }
}

impl Taken {
    fn count(&self, is_it: impl Fn(&Peer) -> bool) -> usize {
        self.connections.values().filter(|connection| is_it(&connection.peer)).count()
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let places = self.connections.values().filter(|one| !one.peer.is_surplus && !one.peer.is_proxy);
        places.for_each(|one| *counts.0.entry(one.peer.client).or_default() += 1);
        counts
    }

    /// Ends, of the connections that may go, the heaviest, and of those one that asks for nothing, and for the longest
    /// time; else the newest. Says whether there was one.
    fn evict(&mut self, may_go: impl Fn(&Peer) -> bool, weight: impl Fn(&Peer) -> usize) -> bool {
        let rank = |peer: &Peer| (weight(peer), !peer.is_busy(), peer.waiting());
        let candidates = self.connections.iter().filter(|(_, one)| may_go(&one.peer));
        let worst = candidates.max_by_key(|(id, one)| (rank(&one.peer), **id)).map(|(id, _)| *id);
        let Some(evicted) = worst.and_then(|id| self.connections.remove(&id)) else { return false };
        if let Some(task) = evicted.task {
            task.abort();
        }
        tracing::debug!(client = ?evicted.peer.client, "a connection makes way");
        true
    }

    /// Ends a connection that keeps the registry waiting, of the client that has most of them. Of one that has more
    /// than a share, it need not have done so for long.
    fn make_way(&mut self, limits: &Limits, counts: &Counts, share: usize, may_go: impl Fn(&Peer) -> bool) -> bool {
        let keeps_waiting = |peer: &Peer| {
            let patience = match peer.is_busy() {
                _ if counts.of(peer.client) > share => limits.silent / 4,
                true => limits.stalled,
                false => limits.silent,
            };
            peer.waiting() >= patience
        };
        self.evict(|peer| keeps_waiting(peer) && may_go(peer), |peer| counts.of(peer.client))
    }

    /// Ends a connection of a client that has more than a share, of the one that has most: also one that goes on.
    fn take_from_the_rich(&mut self, counts: &Counts, share: usize) -> bool {
        let is_rich = |peer: &Peer| !peer.is_surplus && !peer.is_proxy && counts.of(peer.client) > share;
        self.evict(is_rich, |peer| counts.of(peer.client))
    }
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends, of the connections that have kept the registry waiting for so long and may go, the heaviest.
    pub fn evict(&self, waiting: Duration, may_go: impl Fn(&Peer) -> bool, weight: impl Fn(&Peer) -> usize) {
        self.lock().evict(|peer| peer.waiting() >= waiting && may_go(peer), weight);
    }

    /// Ends one, of any client, that keeps the registry waiting.
    fn make_way(&self, limits: &Limits) -> bool {
        let mut taken = self.lock();
        let counts = taken.counts();
        taken.make_way(limits, &counts, 0, |_| true)
    }

    /// A place for a connection, or one among those that are told that there is none; nothing where there are too many
    /// of those.
    fn take(self: &Arc<Self>, address: IpAddr, is_proxy: bool, limits: &Limits) -> Option<Place> {
        let (mut taken, client) = (self.lock(), Client::of(address));
        let has_place = |peer: &Peer| !peer.is_surplus;
        let own = |peer: &Peer| peer.client == client && has_place(peer);
        let counts = taken.counts();
        let own_count = counts.of(client);
        // As many as the others may have that have some, and as are left for one who has none yet.
        let others = counts.0.len() - usize::from(own_count > 0);
        let share = limits.connections.div_ceil(others + 2).min(limits.connections_per_client);
        let is_surplus = if own_count >= share && !is_proxy {
            !taken.make_way(limits, &counts, share, own)
        } else {
            taken.count(has_place) >= limits.connections
                && !taken.make_way(limits, &counts, share, has_place)
                && !taken.take_from_the_rich(&counts, share)
        };
        if is_surplus && taken.count(|peer| peer.is_surplus) >= limits.refusals {
            // Who says nothing needs not be told that there is no place; who asks, and be it a probe, does.
            let is_silent = |peer: &Peer| peer.is_surplus && !peer.is_busy() && peer.waiting() >= limits.silent / 10;
            if !taken.evict(is_silent, |peer| counts.of(peer.client)) {
                return None;
            }
        }
        taken.last += 1;
        let (id, peer) = (taken.last, Arc::new(Peer::new(address, is_proxy, is_surplus)));
        taken.connections.insert(id, Connection { peer: Arc::clone(&peer), task: None });
        Some(Place { places: Arc::clone(self), id, peer })
    }

    /// Lets a connection be ended to make way. One that was to, before it was served, ends now.
    fn serves(&self, id: u64, task: AbortHandle) {
        match self.lock().connections.get_mut(&id) {
            Some(connection) => connection.task = Some(task),
            None => task.abort(),
        }
    }

    /// How many connections there are, those that are told that there is no place included.
    pub fn taken(&self) -> usize {
        self.lock().connections.len()
    }
}

/// The place of a connection, given back when this is dropped.
struct Place {
    places: Arc<Places>,
    id: u64,
    peer: Arc<Peer>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.lock().connections.remove(&self.id);
    }
}

/// Serves until `stop`; then lets requests under way end, and cuts off those that take too long. Cutting a request off
/// is safe: what was answered stays, an upload stands where it got to.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    places: Arc<Places>,
    proxies: &[IpAddr],
    limits: Limits,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let (stream, address) = tokio::select! {
            () = &mut stop => break,
            accepted = accept(&listener, &places, &limits) => accepted,
        };
        while connections.try_join_next().is_some() {} // lets go of those that have ended
        let is_proxy = proxies.contains(&address);
        let Some(place) = places.take(address, is_proxy, &limits) else { continue };
        let (id, peer) = (place.id, Arc::clone(&place.peer));
        let patience = Patience::new(limits.idle, limits.rate);
        let stream = Watched::new(stream, Arc::clone(&peer), patience);
        if !clock::is_sane() {
            connections.spawn(async move {
                let _place = place;
                clock::refuse(stream).await;
            });
            continue;
        }
        let mut http = http1::Builder::new();
        // A surplus connection is only there to be told so.
        let head = if peer.is_surplus { limits.stalled } else { limits.head };
        http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(BUFFER).auto_date_header(false);
        let router = TowerToHyperService::new(router.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Arc::clone(&peer));
            router.call(request)
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        let task = connections.spawn(async move {
            let _place = place;
            if let Some(Err(error)) = clock::while_sane(connection).await {
                tracing::debug!(%error, "a connection has failed");
            }
        });
        places.serves(id, task);
    }
    drop(listener);
    tracing::info!(connections = connections.len(), "stopping");
    if tokio::time::timeout(limits.grace, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting off what takes too long");
    }
    connections.shutdown().await;
}

/// The next connection, and from where it comes. Failures pass; where file descriptors are short, one that keeps the
/// registry waiting makes way.
async fn accept(listener: &TcpListener, places: &Places, limits: &Limits) -> (TcpStream, IpAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let _ = stream.set_nodelay(true); // slower without, no more
                return (stream, address.ip().to_canonical());
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                if !places.make_way(limits) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}
