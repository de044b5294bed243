//! Lifecycle policies of repositories, carried out in the background, and their previews.
//!
//! What a policy means, and how it is carried out without harm to what is used meanwhile, is the crate's
//! ([`strongroom::registry::lifecycle`]). Here is when that happens, and what is kept of it: documents of the
//! repository.
//!
//! # A question before much goes
//! A policy that would act on a great share of a repository's images at once is not carried out until somebody has
//! seen what it does: a preview of the same policy, complete when the policy is set, confirms as many images as it
//! showed, and a tenth and ten more, since images are pushed until it is carried out. Until then the log says so once
//! in a run. A confirmation is for one revision of the policy, and for one time.

mod preview;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;
use strongroom::registry::lifecycle::{Guard, Policy, PolicyError};
use strongroom::registry::{ExpectDocument, Repository};
use strongroom::{Error, Page, Store};

use crate::access::now_ms;
use crate::ecr::documents::{CONFIRMED, EVALUATED, LIFECYCLE};
use crate::http::Registry;
pub use preview::{Begun, Preview, Previews, State};

/// How many images a preview of the policy showed that it acts on.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Confirmed {
    images: usize,
    /// The revision of the document with the policy.
    policy: u64,
}

impl Confirmed {
    /// What was shown, and what may have come since.
    fn allowed(self) -> usize {
        self.images.saturating_add(self.images / 10).saturating_add(10)
    }
}

/// When a policy was carried out last.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Evaluated {
    /// By the wall clock, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The policy of a repository, if one is set.
pub fn policy_of(repository: &Repository) -> strongroom::Result<Option<String>> {
    let document = repository.document(LIFECYCLE)?;
    Ok(document.map(|document| String::from_utf8_lossy(&document.content).into_owned()))
}

/// When the policy of a repository was carried out last.
pub fn evaluated(repository: &Repository) -> strongroom::Result<Option<Evaluated>> {
    let document = repository.document(EVALUATED)?;
    Ok(document.and_then(|document| serde_json::from_slice(&document.content).ok()))
}

/// Sets the policy of a repository, which a preview may have shown to act on so many images.
pub fn set_policy(repository: &Repository, text: &str, confirmed: Option<usize>) -> strongroom::Result<()> {
    let policy = repository.set_document(LIFECYCLE, text, ExpectDocument::Any)?.get();
    let Some(images) = confirmed else { return forget_confirmation(repository, ExpectDocument::Any) };
    let confirmed = json!(Confirmed { images, policy }).to_string();
    repository.set_document(CONFIRMED, confirmed, ExpectDocument::Any).map(drop)
}

/// Removes the policy of a repository.
pub fn remove_policy(repository: &Repository) -> strongroom::Result<()> {
    repository.remove_document(LIFECYCLE, ExpectDocument::Any)?;
    forget_confirmation(repository, ExpectDocument::Any)
}

fn forget_confirmation(repository: &Repository, expect: ExpectDocument) -> strongroom::Result<()> {
    match repository.remove_document(CONFIRMED, expect) {
        Ok(_) | Err(Error::DocumentNotFound { .. } | Error::DocumentChanged { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Carries out the policies of all repositories, now and then.
pub async fn run(registry: Arc<Registry>) {
    let Some(every) = registry.lifecycle.settings.every else { return };
    loop {
        tokio::time::sleep(every).await;
        let own = Arc::clone(&registry);
        let done = registry.store.call(move |store| own.lifecycle.run_all(store)).await;
        if let Err(error) = done {
            tracing::warn!(%error, "lifecycle policies can't be carried out");
        }
    }
}

/// How policies are carried out.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often; never, where there is none.
    pub every: Option<Duration>,
    /// The greatest share of a repository's images, in percent, that is acted on without a question.
    pub max_percent: u8,
    /// Whether policies may say what Amazon ECR's can't.
    pub language: Language,
}

/// What lifecycle policies may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// What Amazon ECR's do.
    #[default]
    Strict,
    /// That, and the crate's extensions.
    Extended,
}

impl Language {
    /// Reads a policy.
    ///
    /// # Errors
    /// As [`Policy::parse`]'s.
    pub fn parse(self, text: &str) -> Result<Policy, PolicyError> {
        match self {
            Self::Strict => Policy::parse(text),
            Self::Extended => Policy::parse_extended(text),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self { every: None, max_percent: 50, language: Language::Strict }
    }
}

/// What a registry keeps of lifecycle policies while it runs.
#[derive(Debug)]
pub struct Lifecycle {
    settings: Settings,
    pub previews: Arc<Previews>,
    /// When policies were carried out last; at first, when the registry began.
    last_run: Mutex<Instant>,
}

impl Lifecycle {
    /// What policies may say.
    pub fn language(&self) -> Language {
        self.settings.language
    }

    pub fn new(settings: Settings) -> Self {
        Self { settings, previews: Arc::default(), last_run: Mutex::new(Instant::now()) }
    }

    /// Carries out the policies of all repositories. What is wrong with one does not keep others from theirs.
    fn run_all(&self, store: &Store) -> strongroom::Result<()> {
        let now = Instant::now();
        let before = std::mem::replace(&mut *self.last_run.lock().unwrap_or_else(PoisonError::into_inner), now);
        let open_ms = u64::try_from((now - before).as_millis()).unwrap_or(u64::MAX);
        for_all(store, |repository| self.run_one(repository, open_ms))
    }

    fn run_one(&self, repository: &Repository, open_ms: u64) -> strongroom::Result<()> {
        let Some(set) = repository.document(LIFECYCLE)? else { return Ok(()) };
        let Ok(policy) = self.settings.language.parse(&String::from_utf8_lossy(&set.content)) else {
            tracing::error!(repository = %repository.name(), "a lifecycle policy that is set can't be read");
            return Ok(());
        };
        let now = now_ms();
        let plan = repository.lifecycle_plan(&policy, now)?;
        let mut guard = Guard::new().max_percent(self.settings.max_percent);
        if let Some(last) = evaluated(repository)? {
            guard = guard.last_evaluated(last.at_ms, open_ms);
        }
        let confirmation = repository.document(CONFIRMED)?;
        let confirmed =
            confirmation.as_ref().and_then(|found| serde_json::from_slice::<Confirmed>(&found.content).ok());
        if let Some(confirmed) = confirmed.filter(|confirmed| confirmed.policy == set.revision.get()) {
            guard = guard.confirm(confirmed.allowed());
        }
        if let Err(refusal) = guard.check(&plan) {
            tracing::warn!(repository = %repository.name(), %refusal, "a lifecycle policy is not carried out");
            // What the clock is asked about depends on when it was carried out last: noting that would be an answer.
            let is_clock_right = guard.max_percent(100).check(&plan).is_ok();
            return if is_clock_right { note(repository, now) } else { Ok(()) };
        }
        if repository.document(LIFECYCLE)?.map(|now| now.revision) != Some(set.revision) {
            return Ok(()); // it was replaced while the images were read: the next run sees to the new one
        }
        let done = repository.apply_lifecycle(&policy, &plan)?;
        if let Some(confirmation) = confirmation {
            forget_confirmation(repository, ExpectDocument::Is(confirmation.revision))?; // it was for this time
        }
        if done.expired + done.archived + done.skipped > 0 {
            let (expired, archived, skipped) = (done.expired, done.archived, done.skipped);
            tracing::info!(repository = %repository.name(), expired, archived, skipped, "lifecycle policy carried out");
        }
        note(repository, now)
    }
}

/// Does something with all repositories. What is wrong with one does not keep others from theirs.
fn for_all(store: &Store, work: impl Fn(&Repository) -> strongroom::Result<()>) -> strongroom::Result<()> {
    for name in Page::all(|after: Option<&String>| store.repositories(after.map(String::as_str), 1000)) {
        let name = name?;
        match store.repository(&name).and_then(|repository| work(&repository)) {
            Ok(()) | Err(Error::RepositoryNotFound { .. }) => {}
            Err(error @ Error::Closed) => return Err(error),
            Err(error) => tracing::warn!(repository = %name, %error, "a lifecycle policy can't be carried out"),
        }
    }
    Ok(())
}

fn note(repository: &Repository, at_ms: u64) -> strongroom::Result<()> {
    let evaluated = json!(Evaluated { at_ms }).to_string();
    repository.set_document(EVALUATED, evaluated, ExpectDocument::Any).map(drop)
}
