//! Lifecycle policies over the images of a repository: what a policy would do, and doing it.

use std::collections::HashMap;

use super::{Action, ActionKind, Evaluation, Image, ImageStatus, Parent, Plan, Policy};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::page::Page;
use crate::registry::{ConditionalAction, ImageAction, ImageFacts, Repository, StorageClass};
use crate::transaction::registry::Following;

/// So many images are read at once.
const PAGE: usize = 1000;

/// What carrying out a [`Plan`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Carried {
    /// The images that were deleted.
    pub expired: usize,
    /// Those that were archived.
    pub archived: usize,
    /// Those that were left: used, changed or deleted since the plan was made, held by an index since, or kept by the
    /// policy now.
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
    /// let done = app.apply_lifecycle(&policy, &plan)?;
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

    /// Carries out a plan that [`lifecycle_plan`](Self::lifecycle_plan) made with the same policy, after a
    /// [`Guard`](super::Guard) was asked.
    ///
    /// The policy is evaluated again, for the same time, and only what both plans say is done: where newer images were
    /// deleted since, older ones are among the newest so many now, and stay. Each image is then acted on only if it is
    /// as it was when that was decided, which is looked at in the same commit: one that was pulled, tagged, pushed
    /// again, restored or put into an index meanwhile is left, and so are its signatures. Those go in one commit with
    /// their image, if they are not hundreds. What is done stays done where a later commit fails, or the process is
    /// killed; doing it again is harmless.
    ///
    /// What is not looked at in the commit is the rest of the repository: where newer images are deleted in the moments
    /// between the second evaluation and a commit, that keeps no older one.
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; [`Error::Corrupt`] where facts are damaged,
    /// since who can't see all images can't say which are the newest; what keeps a commit from being durable, such as
    /// [`Error::Full`].
    pub fn apply_lifecycle(&self, policy: &Policy, plan: &Plan<Digest>) -> Result<Carried> {
        let agreed = self.still_planned(policy, plan)?;
        let mut carried = Carried { skipped: plan.actions.len() - agreed.len(), ..Carried::default() };
        for (result, wanted) in self.act_if_unchanged(&agreed)?.into_iter().zip(&agreed) {
            match (result, wanted.action.action) {
                (Ok(_), ImageAction::Expire) => carried.expired += 1,
                (Ok(_), ImageAction::Archive) => carried.archived += 1,
                (Err(refused), _) if is_left(&refused) => carried.skipped += 1,
                (Err(error), _) => return Err(error),
            }
        }
        Ok(carried)
    }

    /// What of a plan the policy says of the images as they are now, if those are as they were, in the order of plans.
    fn still_planned(&self, policy: &Policy, plan: &Plan<Digest>) -> Result<Vec<Following>> {
        let planned: HashMap<Digest, &Action<Digest>> =
            plan.actions.iter().map(|action| (action.key, action)).collect();
        if planned.is_empty() {
            return Ok(Vec::new());
        }
        let mut known = HashMap::with_capacity(planned.len());
        let mut evaluation = Evaluation::new(policy, plan.now_ms);
        for facts in self.all_image_facts() {
            let facts = facts?;
            if planned.contains_key(&facts.digest) {
                known.insert(facts.digest, (facts.version, facts.subject));
            }
            evaluation.add(image(&facts), &facts.tags);
        }
        let agreed = evaluation.finish().actions.into_iter().filter_map(|now| {
            let (before, (expect, subject)) = (planned.get(&now.key)?, *known.get(&now.key)?);
            if (before.kind, before.fingerprint) != (now.kind, now.fingerprint) {
                return None;
            }
            let action = match now.kind {
                ActionKind::Expire => ImageAction::Expire,
                ActionKind::Archive => ImageAction::Archive,
            };
            // What no rule decided about is archived because its subject is, which may be restored before its turn.
            let subject = if now.rule_priority.is_none() { subject } else { now.subject };
            Some(Following { action: ConditionalAction { digest: now.key, expect, action }, subject })
        });
        Ok(agreed.collect())
    }

    fn all_image_facts(&self) -> impl Iterator<Item = Result<ImageFacts>> {
        Page::all(|after| self.image_facts(after, PAGE))
    }
}

/// Whether an image is left since it is not as it was.
fn is_left(error: &Error) -> bool {
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
