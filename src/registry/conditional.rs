//! Changing images that are still as they were when that was decided.

use std::collections::HashMap;

use crate::error::{Error, Result};
use crate::facts::{Family, Prefix, Reader, find};
use crate::id::Lsn;
use crate::registry::Repository;
use crate::registry::images::MAX_TAGS;
use crate::transaction::registry::{ActIfUnchanged, ConditionalAction, Following, ImageAction};

/// So many images are changed in one commit, if what goes with them is not much.
const ACTED_ON_AT_ONCE: usize = 64;

/// So many, where those behind the first of them follow their subjects.
const ACTED_ON_TOGETHER: usize = 512;

/// So many references and tags go in one commit, if not those of one image are more.
const STEP_COST: usize = 10_000;

/// What archiving an image that an index holds costs, in references.
const CHILD_COST: usize = 8;

impl Repository {
    /// Deletes or archives images, each only if it is still as it was when that was decided: it has the same tags, set
    /// at the same times, and was not pushed anew, pulled, archived or restored since; and no manifest holds it. So
    /// nothing that happens between the decision and the deletion is overlooked: a pull that was answered before the
    /// deletion was decided at its turn keeps the image, also if it is in memory only. (A pull that is answered in the
    /// same moment may come to be the last: its client has the manifest then, and the layers stay for
    /// [`Options::retention`](crate::Options::retention).)
    ///
    /// All of it is done in commits of at most 64 images. Those that are done stay done where a later one fails.
    ///
    /// ```
    /// use strongroom::registry::{ConditionalAction, ImageAction, PutManifest, RepositorySettings};
    /// use strongroom::{Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// let app = store.create_repository(&"team/app".parse()?, RepositorySettings::new())?;
    /// for document in ["old", "older"] {
    ///     app.put_manifest(document, PutManifest::new("text/plain").references([], []))?;
    /// }
    /// // All are to go. Meanwhile one is pulled.
    /// let images = app.image_facts(None, 100)?.items;
    /// let decided = images.iter().map(|image| {
    ///     ConditionalAction { digest: image.digest, expect: image.version, action: ImageAction::Expire }
    /// });
    /// let decided: Vec<_> = decided.collect();
    /// app.pull_manifest(&images[1].digest.into())?;
    ///
    /// let done = app.apply_if_unchanged(&decided)?;
    /// assert!(done[0].is_ok() && matches!(done[1], Err(Error::ImageChanged { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::RepositoryNotFound`] where the repository was deleted; what keeps a commit from being durable. For
    /// each: [`Error::ImageChanged`]; [`Error::ManifestInUse`]; [`Error::ManifestNotFound`]; [`Error::TooLarge`] where
    /// it has more than 1,000 tags, or where more than 10,000 manifests would be archived with it.
    pub fn apply_if_unchanged(&self, actions: &[ConditionalAction]) -> Result<Vec<Result<Lsn>>> {
        self.act_if_unchanged(&actions.iter().copied().map(Following::from).collect::<Vec<_>>())
    }

    /// [`apply_if_unchanged`](Self::apply_if_unchanged), of actions of which some follow others. Those that follow one
    /// another go in one commit with it, if they are not too many for one.
    pub(super) fn act_if_unchanged(&self, actions: &[Following]) -> Result<Vec<Result<Lsn>>> {
        // What is a fact is seen by those who decide next, too. On a full disk, of which this may free some, notes
        // count as well, while none was left out.
        match self.registry.write_pulls() {
            Err(Error::Full { .. }) if !self.registry.pending.is_overfull() => {}
            other => other?,
        }
        let mut results = Vec::with_capacity(actions.len());
        let mut left = actions;
        while !left.is_empty() {
            let (step, others) = left.split_at(self.step_len(left)?);
            left = others;
            let (repository, pulls) = (self.named(), self.registry.clone());
            let outcome = self.commit(ActIfUnchanged { repository, actions: step.to_vec(), pulls })?;
            let mut refused: HashMap<usize, Error> = outcome.refused.into_iter().collect();
            for (part, Following { action: wanted, .. }) in step.iter().enumerate() {
                let result = refused.remove(&part).map_or(Ok(outcome.lsn), Err);
                if result.is_ok() && wanted.action == ImageAction::Expire {
                    self.registry.pending.forget(self, &wanted.digest);
                }
                results.push(result);
            }
        }
        Ok(results)
    }

    /// How many of these go in one commit.
    fn step_len(&self, actions: &[Following]) -> Result<usize> {
        let snapshot = self.facts()?;
        let (mut cost, mut whole) = (0, 0);
        for (number, Following { action: wanted, subject }) in actions.iter().enumerate() {
            if subject.is_none() {
                whole = number;
                if number >= ACTED_ON_AT_ONCE {
                    return Ok(number);
                }
            }
            let manifest = find::manifest(&snapshot, self.id, &wanted.digest)?;
            let held = manifest.map_or(0, |manifest| manifest.held.len());
            cost += match wanted.action {
                ImageAction::Expire => {
                    let tags = Prefix::under(self.domain, Family::TagOf, self.id, &wanted.digest);
                    1 + held + Reader::scan(&snapshot, tags, None, MAX_TAGS)?.len()
                }
                ImageAction::Archive => 1 + CHILD_COST * held,
            };
            if number >= ACTED_ON_TOGETHER || (number > 0 && cost > STEP_COST) {
                return Ok(if whole > 0 { whole } else { number });
            }
        }
        Ok(actions.len())
    }
}
