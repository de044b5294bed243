//! Previews: what a policy would do, worked out in the background and kept for a while.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use strongroom::Digest;
use strongroom::registry::lifecycle::{Plan, Policy};
use strongroom::registry::{Repository, RepositoryName};

use crate::access::now_ms;

/// For how long a preview is kept, as at Amazon ECR.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many are kept: the oldest goes for a new one.
const MAX_KEPT: usize = 64;

/// A preview: of which policy, and how far it is.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Tells previews apart.
    pub id: u64,
    pub text: String,
    pub state: State,
    begun: Instant,
}

#[derive(Clone, Debug)]
pub enum State {
    InProgress,
    Complete(Arc<Plan<Digest>>),
    Failed,
}

/// The previews of repositories, each the last one.
#[derive(Debug, Default)]
pub struct Previews {
    kept: Mutex<HashMap<RepositoryName, Preview>>,
    begun: AtomicU64,
    /// One is worked out at a time.
    working: Mutex<()>,
}

impl Previews {
    fn lock(&self) -> MutexGuard<'_, HashMap<RepositoryName, Preview>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, preview| preview.begun.elapsed() < KEPT);
        kept
    }

    pub fn get(&self, name: &RepositoryName) -> Option<Preview> {
        self.lock().get(name).cloned()
    }

    /// How many images a complete preview of a policy acts on.
    pub fn shown(&self, name: &RepositoryName, text: &str) -> Option<usize> {
        match self.lock().get(name) {
            Some(Preview { text: previewed, state: State::Complete(plan), .. }) if previewed == text => {
                Some(plan.summary.acting())
            }
            _ => None,
        }
    }

    /// Begins a preview; `None` where there is one of the repository under way.
    pub fn begin(self: &Arc<Self>, repository: Repository, text: &str, policy: Policy) -> Option<()> {
        let name = repository.name().clone();
        {
            let mut kept = self.lock();
            if kept.get(&name).is_some_and(|preview| matches!(preview.state, State::InProgress)) {
                return None;
            }
            if kept.len() >= MAX_KEPT {
                let done = kept.iter().filter(|(_, preview)| !matches!(preview.state, State::InProgress));
                let oldest = done.min_by_key(|(_, preview)| preview.begun).map(|(name, _)| name.clone());
                kept.remove(&oldest?);
            }
            let id = self.begun.fetch_add(1, Relaxed);
            let preview = Preview { id, text: text.to_owned(), state: State::InProgress, begun: Instant::now() };
            kept.insert(name.clone(), preview);
        }
        let own = Arc::clone(self);
        let work = move || {
            let _alone = own.working.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = repository.lifecycle_plan(&policy, now_ms());
            own.end(repository.name(), plan);
        };
        if let Err(error) = std::thread::Builder::new().name("lifecycle preview".to_owned()).spawn(work) {
            tracing::warn!(%error, "a lifecycle preview can't be worked out");
            self.set(&name, State::Failed);
        }
        Some(())
    }

    fn end(&self, name: &RepositoryName, plan: strongroom::Result<Plan<Digest>>) {
        let state = plan.map_or_else(
            |error| {
                tracing::warn!(repository = %name, %error, "a lifecycle preview can't be worked out");
                State::Failed
            },
            |plan| State::Complete(Arc::new(plan)),
        );
        self.set(name, state);
    }

    fn set(&self, name: &RepositoryName, state: State) {
        if let Some(preview) = self.lock().get_mut(name) {
            preview.state = state;
        }
    }
}
