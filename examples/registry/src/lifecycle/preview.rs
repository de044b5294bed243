//! Previews: what a policy would do, worked out in the background and kept for a while.
//!
//! A preview is of one repository, not of whichever has its name: it ends with the repository.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use strongroom::registry::lifecycle::{Plan, Policy};
use strongroom::registry::{Repository, RepositoryName};
use strongroom::{Digest, Error};

use crate::access::now_ms;

/// For how long a preview is kept, as at Amazon ECR.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// How many are kept: the oldest goes for a new one.
const MAX_KEPT: usize = 64;

/// How many actions they have together, but for the last: some 40 MB.
const MAX_ACTIONS: usize = 250_000;

/// A preview: of which policy, and how far it is.
#[derive(Clone, Debug)]
pub struct Preview {
    /// Tells previews apart.
    pub id: u64,
    pub text: String,
    pub state: State,
    begun: Instant,
    /// It is not found any more once the repository was deleted, whoever has its name then.
    repository: Repository,
}

impl Preview {
    fn actions(&self) -> usize {
        match &self.state {
            State::Complete(plan) => plan.actions.len(),
            State::InProgress | State::Failed => 0,
        }
    }

    fn is_in_progress(&self) -> bool {
        matches!(self.state, State::InProgress)
    }
}

/// What became of a wish for a preview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    Begun,
    /// One of the repository is under way.
    InProgress,
    /// As many are under way as can be.
    TooMany,
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

    /// The last preview of the repository that has a name now.
    pub fn get(&self, name: &RepositoryName) -> strongroom::Result<Option<Preview>> {
        let Some(found) = self.lock().get(name).cloned() else { return Ok(None) };
        match found.repository.info() {
            Ok(_) => Ok(Some(found)),
            Err(Error::RepositoryNotFound { .. }) => {
                self.forget(name, found.id);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn forget(&self, name: &RepositoryName, id: u64) {
        let mut kept = self.lock();
        if kept.get(name).is_some_and(|preview| preview.id == id) {
            kept.remove(name);
        }
    }

    /// How many images a complete preview of a policy acts on.
    pub fn shown(&self, name: &RepositoryName, text: &str) -> strongroom::Result<Option<usize>> {
        Ok(match self.get(name)? {
            Some(Preview { text: previewed, state: State::Complete(plan), .. }) if is_same(&previewed, text) => {
                Some(plan.summary.acting())
            }
            _ => None,
        })
    }

    /// Begins a preview.
    pub fn begin(self: &Arc<Self>, repository: Repository, text: &str, policy: Policy) -> strongroom::Result<Begun> {
        let (name, id) = (repository.name().clone(), self.begun.fetch_add(1, Relaxed));
        if self.get(&name)?.is_some_and(|preview| preview.is_in_progress()) {
            return Ok(Begun::InProgress);
        }
        let (state, begun) = (State::InProgress, Instant::now());
        let preview = Preview { id, text: text.to_owned(), state, begun, repository: repository.clone() };
        {
            let mut kept = self.lock();
            if kept.get(&name).is_some_and(Preview::is_in_progress) {
                return Ok(Begun::InProgress);
            }
            if kept.len() >= MAX_KEPT && !kept.contains_key(&name) && !forget_oldest(&mut kept, None) {
                return Ok(Begun::TooMany);
            }
            kept.insert(name.clone(), preview);
        }
        let own = Arc::clone(self);
        let work = move || {
            let _alone = own.working.lock().unwrap_or_else(PoisonError::into_inner);
            let plan = repository.lifecycle_plan(&policy, now_ms());
            own.end(repository.name(), id, plan);
        };
        if let Err(error) = std::thread::Builder::new().name("lifecycle preview".to_owned()).spawn(work) {
            tracing::warn!(%error, "a lifecycle preview can't be worked out");
            self.set(&name, id, State::Failed);
        }
        Ok(Begun::Begun)
    }

    fn end(&self, name: &RepositoryName, id: u64, plan: strongroom::Result<Plan<Digest>>) {
        let state = plan.map_or_else(
            |error| {
                tracing::warn!(repository = %name, %error, "a lifecycle preview can't be worked out");
                State::Failed
            },
            |plan| State::Complete(Arc::new(plan)),
        );
        self.set(name, id, state);
    }

    fn set(&self, name: &RepositoryName, id: u64, state: State) {
        let mut kept = self.lock();
        if let Some(preview) = kept.get_mut(name).filter(|preview| preview.id == id) {
            preview.state = state;
        }
        while kept.values().map(Preview::actions).sum::<usize>() > MAX_ACTIONS && forget_oldest(&mut kept, Some(id)) {}
    }
}

/// Forgets the oldest preview that is not under way, but for one.
fn forget_oldest(kept: &mut HashMap<RepositoryName, Preview>, but: Option<u64>) -> bool {
    let done = kept.iter().filter(|(_, preview)| !preview.is_in_progress() && Some(preview.id) != but);
    let oldest = done.min_by_key(|(_, preview)| preview.id).map(|(name, _)| name.clone());
    oldest.is_some_and(|name| kept.remove(&name).is_some())
}

/// Whether two texts are the same policy: programs write one policy with other white space, or in another order.
fn is_same(one: &str, other: &str) -> bool {
    let value = |text| serde_json::from_str::<Value>(text).ok();
    one == other || value(one).is_some_and(|one| value(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use strongroom::registry::{PutManifest, RepositoryDeletion, RepositorySettings};
    use strongroom::vfs::SimVfs;
    use strongroom::{Options, Store};

    use super::*;

    const POLICY: &str = r#"{"rules": [{"rulePriority": 1,
        "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1},
        "action": {"type": "expire"}}]}"#;

    fn begin(previews: &Arc<Previews>, repository: &Repository) -> Begun {
        previews.begin(repository.clone(), POLICY, Policy::parse(POLICY).unwrap()).unwrap()
    }

    fn create(store: &Store, name: &str) -> Repository {
        let repository = store.create_repository(&name.parse().unwrap(), RepositorySettings::new()).unwrap();
        for document in ["one", "two"] {
            repository.put_manifest(document, PutManifest::new("text/plain").references([], [])).unwrap();
        }
        repository
    }

    fn wait_for(previews: &Previews, repository: &Repository) -> usize {
        loop {
            match previews.get(repository.name()).unwrap().unwrap().state {
                State::InProgress => std::thread::yield_now(),
                State::Complete(plan) => return plan.summary.acting(),
                State::Failed => panic!("it failed"),
            }
        }
    }

    #[test]
    fn one_is_under_way_of_a_repository_and_so_many_of_all() {
        let store = Options::new().create(true).vfs(Arc::new(SimVfs::new())).open("/store").unwrap();
        let all: Vec<_> = (0..=MAX_KEPT).map(|n| create(&store, &format!("team/app-{n}"))).collect();
        let (last, all) = all.split_last().unwrap();
        let previews = Arc::new(Previews::default());
        let working = previews.working.lock().unwrap();
        for repository in all {
            assert_eq!(begin(&previews, repository), Begun::Begun);
            assert_eq!(begin(&previews, repository), Begun::InProgress);
        }
        assert_eq!(begin(&previews, last), Begun::TooMany);
        assert!(previews.get(last.name()).unwrap().is_none());
        drop(working);
        all.iter().for_each(|repository| assert_eq!(wait_for(&previews, repository), 1));
        assert_eq!(begin(&previews, last), Begun::Begun);
        assert_eq!(wait_for(&previews, last), 1);
        assert!(previews.get(all[0].name()).unwrap().is_none(), "the oldest went for it");
        assert_eq!(previews.shown(last.name(), POLICY).unwrap(), Some(1));
        let same = format!("{:#}", serde_json::from_str::<Value>(POLICY).unwrap());
        assert!(same != POLICY);
        assert_eq!(previews.shown(last.name(), &same).unwrap(), Some(1));
        for other in ["another policy", &POLICY.replace("1", "2")] {
            assert_eq!(previews.shown(last.name(), other).unwrap(), None);
        }
    }

    #[test]
    fn the_result_about_a_deleted_repository_is_not_that_of_its_successor() {
        let store = Options::new().create(true).vfs(Arc::new(SimVfs::new())).open("/store").unwrap();
        let first = create(&store, "team/app");
        let previews = Arc::new(Previews::default());
        let working = previews.working.lock().unwrap();
        assert_eq!(begin(&previews, &first), Begun::Begun);
        store.delete_repository(first.name(), RepositoryDeletion::WithContents).unwrap();
        let next = create(&store, "team/app");
        assert!(previews.get(next.name()).unwrap().is_none());
        assert_eq!(begin(&previews, &next), Begun::Begun);
        drop(working);
        assert_eq!(wait_for(&previews, &next), 1);
    }
}
