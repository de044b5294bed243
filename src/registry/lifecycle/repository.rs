//! Lifecycle policies over the images of a repository: what a policy would do, and doing it.

use std::collections::{HashMap, HashSet};

use super::{Action, ActionKind, Evaluation, Fingerprint, Image, ImageStatus, Parent, Plan, Policy};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::page::Page;
use crate::registry::{ConditionalAction, ImageAction, ImageFacts, Repository, StorageClass};

/// So many images are read at once.
const PAGE: usize = 1000;

/// So many images are handed over at once to be acted on.
const BATCH: usize = 256;

/// What carrying out a [`Plan`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Carried {
    /// The images that were deleted.
    pub expired: usize,
    /// Those that were archived.
    pub archived: usize,
    /// Those that were left: used, changed or deleted since the plan was made, or held by an index since.
    pub skipped: usize,
}

impl Repository {
    /// What a lifecycle policy does to the repository's images as they are now. `now_ms` is the time that ages are
    /// counted to, in milliseconds since 1970. Nothing is changed: this is also the preview of a policy.
    ///
    /// It reads every image, page by page, and so sees what is pushed meanwhile or not;
    /// [`apply_lifecycle`](Self::apply_lifecycle) looks again. An image with more than 1,000 tags is left alone.
    ///
    /// ```
    /// use strongroom::registry::lifecycle::Policy;
    /// use strongroom::registry::{PutManifest, RepositorySettings};
    /// use strongroom::Options;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// for tag in ["v1", "v2"] {
    ///     app.put_manifest(tag, PutManifest::new("text/plain").references([], []).tag(tag.parse()?))?;
    /// }
    /// let policy = Policy::parse(
    ///     r#"{"rules": [{"rulePriority": 1,
    ///         "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1},
    ///         "action": {"type": "expire"}}]}"#,
    /// )?;
    /// let plan = app.lifecycle_plan(&policy, 1_800_000_000_000)?;
    /// assert_eq!((plan.summary.evaluated, plan.summary.expiring), (2, 1));
    ///
    /// // Somebody pulls the image that is to go: it stays.
    /// app.pull_manifest(&plan.actions[0].key.into())?;
    /// let done = app.apply_lifecycle(&plan)?;
    /// assert_eq!((done.expired, done.skipped), (0, 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged.
    pub fn lifecycle_plan(&self, policy: &Policy, now_ms: u64) -> Result<Plan<Digest>> {
        let mut evaluation = Evaluation::new(policy, now_ms);
        for facts in self.all_image_facts() {
            let facts = facts?;
            evaluation.add(image(&facts), &facts.tags);
        }
        Ok(evaluation.finish())
    }

    /// Carries out a plan of [`lifecycle_plan`](Self::lifecycle_plan), after a [`Guard`](super::Guard) was asked.
    ///
    /// Each image is acted on only if it is as it was when that was decided, which is looked at in the same commit: one
    /// that was pulled, tagged, pushed again, restored or put into an index meanwhile is left, and so are its
    /// signatures. What is done stays done where a later commit fails, or the process is killed; doing it again is
    /// harmless.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged; what
    /// keeps a commit from being durable, such as [`Error::Full`].
    pub fn apply_lifecycle(&self, plan: &Plan<Digest>) -> Result<Carried> {
        let (mut carried, mut done) = (Carried::default(), HashSet::new());
        let mut versions = self.unchanged(&plan.actions)?;
        // Those that follow others come behind them.
        let (own, following): (Vec<_>, Vec<_>) = plan.actions.iter().partition(|action| action.subject.is_none());
        self.carry_out(&own, &mut versions, &mut done, &mut carried)?;
        let mut left = following;
        loop {
            let is_due = |action: &&Action<Digest>| action.subject.is_some_and(|subject| done.contains(&subject));
            let (due, others): (Vec<_>, Vec<_>) = left.into_iter().partition(is_due);
            if due.is_empty() {
                carried.skipped += others.len();
                return Ok(carried);
            }
            self.carry_out(&due, &mut versions, &mut done, &mut carried)?;
            left = others;
        }
    }

    /// The images of a plan that are as they were when it was made, with their versions.
    fn unchanged(&self, actions: &[Action<Digest>]) -> Result<HashMap<Digest, ConditionalAction>> {
        let decided: HashMap<Digest, &Action<Digest>> = actions.iter().map(|action| (action.key, action)).collect();
        let mut unchanged = HashMap::with_capacity(decided.len());
        if decided.is_empty() {
            return Ok(unchanged);
        }
        for facts in self.all_image_facts() {
            let facts = facts?;
            let Some(action) = decided.get(&facts.digest) else { continue };
            if Fingerprint::of(&image(&facts), &facts.tags) == action.fingerprint {
                let kind = match action.kind {
                    ActionKind::Expire => ImageAction::Expire,
                    ActionKind::Archive => ImageAction::Archive,
                };
                let conditional = ConditionalAction { digest: facts.digest, expect: facts.version, action: kind };
                unchanged.insert(facts.digest, conditional);
            }
        }
        Ok(unchanged)
    }

    fn carry_out(
        &self,
        actions: &[&Action<Digest>],
        versions: &mut HashMap<Digest, ConditionalAction>,
        done: &mut HashSet<Digest>,
        carried: &mut Carried,
    ) -> Result<()> {
        let found: Vec<_> = actions.iter().filter_map(|action| versions.remove(&action.key)).collect();
        carried.skipped += actions.len() - found.len();
        for batch in found.chunks(BATCH) {
            for (result, wanted) in self.apply_if_unchanged(batch)?.into_iter().zip(batch) {
                match (result, wanted.action) {
                    (Ok(_), ImageAction::Expire) => carried.expired += 1,
                    (Ok(_), ImageAction::Archive) => carried.archived += 1,
                    (Err(refused), _) if is_skipped(&refused) => {
                        carried.skipped += 1;
                        continue;
                    }
                    (Err(error), _) => return Err(error),
                }
                done.insert(wanted.digest);
            }
        }
        Ok(())
    }

    fn all_image_facts(&self) -> impl Iterator<Item = Result<ImageFacts>> {
        Page::all(|after| self.image_facts(after, PAGE))
    }
}

/// Whether an image is left since it is not as it was.
fn is_skipped(error: &Error) -> bool {
    matches!(
        error,
        Error::ImageChanged { .. }
            | Error::ManifestInUse { .. }
            | Error::ManifestNotFound { .. }
            | Error::TooLarge { .. }
    )
}

/// What rules look at.
fn image(facts: &ImageFacts) -> Image<'_, Digest> {
    Image {
        pulled_ms: facts.pulled_ms,
        tagged_ms: facts.tagged_ms,
        archived_ms: facts.archived_ms,
        activated_ms: facts.activated_ms,
        status: match facts.storage_class {
            _ if facts.has_more_tags => ImageStatus::Activating, // nothing can be decided about it
            StorageClass::Standard => ImageStatus::Active,
            StorageClass::Archive => ImageStatus::Archived,
        },
        parent: if facts.holders > 0 { Parent::Index } else { Parent::None },
        subject: facts.subject,
        artifact_type: facts.artifact_type.as_deref(),
        ..Image::new(facts.digest, facts.pushed_ms)
    }
}
