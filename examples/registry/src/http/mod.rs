//! What all APIs share: connections, limits, what a request must be like, and the registry's state.
//!
//! ```text
//! connections ─► observe ─► gate ─► server ─► oci: the distribution API ─► AsyncStore
//!  places, stop   log line,  what a            ecr: the API of Amazon ECR
//!                 metrics    request must be
//! ```
//! What one client may take, of connections, time, memory and what it leaves unfinished, is in `limits`.

pub mod body;
mod clock;
pub mod connections;
pub mod failure;
pub mod gate;
pub mod health;
pub mod limits;
pub mod memory;
pub mod metrics;
pub mod observe;
mod patience;
pub mod peer;
mod transport;
mod turns;
mod unfinished;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode};
use axum::response::{IntoResponse as _, Response};
use strongroom::aio::AsyncStore;
use strongroom::registry::{Repository, RepositoryName, RepositorySettings};
use strongroom::{Error, Result, Store};

use crate::access::{Access, Asker, On, ParsedPolicies};
use crate::auth::{Auth, Identity};
use crate::lifecycle::{self, Lifecycle};
use body::{Gathered, Incoming, Kind};
use connections::Places;
use failure::{Code, Failure};
pub use gate::Admission;
use health::Health;
use limits::{Limits, UNCOUNTED};
use memory::{Held, Memory};
use metrics::Metrics;
use peer::{Client, Peer};
use turns::Turns;
use unfinished::Unfinished;

/// How a registry behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    pub auth: Arc<Auth>,
    pub creation: Creation,
    pub indexes: Indexes,
    pub admission: Admission,
    /// The addresses of proxies, which are many clients, and say which.
    pub proxies: Vec<IpAddr>,
    pub limits: Limits,
    pub lifecycle: lifecycle::Settings,
    /// Counts lines of the log that were lost, since nobody took them.
    pub lost_lines: Arc<AtomicU64>,
}

/// Whether an index may be pushed before what it lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Indexes {
    /// It may not.
    Whole,
    /// It may: what is missing may come later, or never.
    Sparse,
}

/// When repositories come to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// When something is pushed to them.
    OnPush,
    /// Not by requests.
    Never,
}

/// What all requests share.
#[derive(Debug)]
pub struct Registry {
    pub auth: Arc<Auth>,
    pub policies: ParsedPolicies,
    pub lifecycle: Lifecycle,
    pub store: AsyncStore,
    pub creation: Creation,
    pub indexes: Indexes,
    pub admission: Admission,
    pub limits: Limits,
    pub metrics: Metrics,
    pub lost_lines: Arc<AtomicU64>,
    pub health: Health,
    pub memory: Memory,
    pub places: Arc<Places>,
    pub unfinished: Unfinished,
    /// For calls that may write, for those that only read, and for those of them that look at much.
    pub turns: Turns,
    pub read_turns: Turns,
    pub long_turns: Turns,
}

/// How many calls run at once, and as many that only read. Commits that wait at the same time share a sync, so more
/// than there are cores help.
const TURNS: usize = 64;

/// How many of them one client has.
const TURNS_OF_ONE: usize = 48;

/// How many may look at much: pages of referrers.
const LONG_TURNS: usize = 1;

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    pub peer: Arc<Peer>,
    pub client: Client,
    pub asker: Arc<Asker>,
}

impl Registry {
    pub fn new(store: AsyncStore, settings: Settings) -> Self {
        let places = Arc::new(Places::default());
        Self {
            auth: settings.auth,
            policies: ParsedPolicies::default(),
            lifecycle: Lifecycle::new(settings.lifecycle),
            store,
            creation: settings.creation,
            indexes: settings.indexes,
            admission: settings.admission,
            limits: settings.limits,
            metrics: Metrics::default(),
            lost_lines: settings.lost_lines,
            health: Health::default(),
            memory: Memory::new(Arc::clone(&places), &settings.limits),
            places,
            unfinished: Unfinished::default(),
            turns: Turns::new(TURNS, TURNS_OF_ONE, settings.limits.wait),
            read_turns: Turns::new(TURNS, TURNS_OF_ONE, settings.limits.wait),
            long_turns: Turns::new(LONG_TURNS, LONG_TURNS, settings.limits.wait),
        }
    }

    /// Waits until a refusal may be told that was asked for at this time: see [`Limits::refusal`].
    pub async fn refusal(&self, asked: Instant) {
        tokio::time::sleep_until((asked + self.limits.refused_after(asked.elapsed())).into()).await;
    }

    /// The rights of who asks.
    pub fn access<'a>(&'a self, store: &'a Store, caller: &'a Caller) -> Access<'a> {
        Access::new(&self.auth, &self.policies, store, &caller.asker)
    }

    /// The store, for calls that may write, when a client's turn has come. They hold the turn, also when the client is
    /// gone and they run on.
    pub async fn writing(&self, caller: &Caller) -> Result<AsyncStore, Failure> {
        Ok(self.store.holding(self.turns.take(caller.client).await?))
    }

    /// The store, for calls that only read, when a client's turn has come. They do not wait for others that write,
    /// whatever those wait for.
    pub async fn reading(&self, caller: &Caller) -> Result<AsyncStore, Failure> {
        Ok(self.store.holding(self.read_turns.take(caller.client).await?))
    }

    /// Does something to the repository that somebody pushes to.
    pub fn push<T>(
        &self,
        store: &Store,
        name: &RepositoryName,
        caller: &Caller,
        mut work: impl FnMut(&Repository) -> Result<T>,
    ) -> Result<T, Failure> {
        let mut again = 0..3;
        loop {
            match work(&self.pushed_to(store, name, caller)?) {
                // A collection has just deleted it, since no push to it was completed: this one creates it anew.
                Err(Error::RepositoryNotFound { .. })
                    if self.creation == Creation::OnPush && again.next().is_some() => {}
                other => return Ok(other?),
            }
        }
    }

    fn pushed_to(&self, store: &Store, name: &RepositoryName, caller: &Caller) -> Result<Repository, Failure> {
        match (store.repository(name), self.creation) {
            (Err(Error::RepositoryNotFound { .. }), Creation::OnPush) => {
                let access = self.access(store, caller);
                access
                    .check("ecr:CreateRepository", On::Repository { account: access.account(), name: name.as_str() })?;
                self.unfinished.create_repository(caller.client, name, &self.limits)?;
                let created = store.create_on_push(name, RepositorySettings::new());
                if created.is_err() {
                    self.unfinished.repository_settled(name);
                }
                Ok(created?)
            }
            (found, _) => Ok(found?),
        }
    }

    /// A body in memory, which is short, and the memory that it takes if it is not that short.
    pub async fn whole(
        &self,
        body: Body,
        kind: Kind,
        max: usize,
        caller: &Caller,
    ) -> Result<(Vec<u8>, Option<Held>), Failure> {
        let check_len = |len| {
            let message = || format!("the body has more than {max} bytes, the most that is taken here");
            let refused = || Failure::new(StatusCode::PAYLOAD_TOO_LARGE, Code::SizeInvalid, message());
            if len <= max { Ok(()) } else { Err(refused()) }
        };
        let mut incoming = self.incoming(body, kind, caller);
        let (mut content, gathered, mut held) = (Vec::new(), Gathered::default(), None);
        let expected = incoming.expected().map(|len| usize::try_from(len).unwrap_or(usize::MAX));
        check_len(expected.unwrap_or_default())?;
        loop {
            if !incoming.some(&gathered, UNCOUNTED).await? {
                return Ok((content, held));
            }
            let len = content.len() + gathered.len();
            check_len(len)?;
            if held.is_none() && len > UNCOUNTED {
                held = Some(self.memory.keep(expected.unwrap_or(max), caller).await?);
            }
            content.reserve_exact(expected.unwrap_or_default().saturating_sub(content.len()));
            gathered.take().iter().for_each(|piece| content.extend_from_slice(piece));
        }
    }

    /// A body that is to be received.
    pub fn incoming(&self, body: Body, kind: Kind, caller: &Caller) -> Incoming {
        Incoming::new(body, kind, &caller.peer, &self.limits)
    }
}

impl Caller {
    /// Who asks on a connection, as whom.
    pub fn new(peer: Arc<Peer>, parts: &Parts, identity: Identity) -> Self {
        let client = peer.client_of(&parts.headers);
        let asker = Arc::new(Asker::new(identity, parts, &peer));
        Self { peer, client, asker }
    }

    /// The same, as somebody else.
    pub fn by(&self, asker: Asker) -> Self {
        Self { asker: Arc::new(asker), ..self.clone() }
    }
}

/// An answer without a body.
pub fn empty<const N: usize>(status: StatusCode, headers: [(HeaderName, String); N]) -> Response {
    (status, headers).into_response()
}

pub fn json(document: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], Body::from(document)).into_response()
}
