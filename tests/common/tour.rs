//! A history that meets every operation on repositories, in each of the ways that matter.

use std::fmt::Debug;

use strongroom::Algorithm;
use strongroom::registry::{ExpectTag, ImageAction};

use super::calls::Kind;
use super::repositories::{Action, Held, Outcome, Refusal, Settings};
use super::{Model, Pair, Random, Step};
use strongroom::vfs::SimVfs;

/// A history under construction, with what it has led to so far.
struct Tour {
    pair: Pair,
    steps: Vec<Step>,
}

impl Tour {
    fn step(&mut self, step: Step) {
        self.pair.run(&step).expect("a working disk");
        self.steps.push(step);
    }

    /// Adds the first call of a kind that is as wanted.
    fn call(&mut self, kind: Kind, repository: u64, wanted: impl Fn(&Action, &Outcome, &Model) -> bool) {
        let is_wanted = |pick: &u64| {
            let Some(call) = kind.draw(&self.pair.model, repository, &mut Random(*pick)) else { return false };
            let outcome = self.pair.outcome(&call);
            wanted(&call.action, &outcome, &self.pair.model)
        };
        let pick = (0..20_000).find(is_wanted).unwrap_or_else(|| panic!("no {kind:?} as wanted in {repository}"));
        self.step(Step::Call { kind, repository, pick });
    }

    fn done(&mut self, kind: Kind, repository: u64) {
        self.call(kind, repository, |_, outcome, _| *outcome == Outcome::Done);
    }

    fn refused<T: Debug>(&mut self, kind: Kind, repository: u64, as_wanted: fn(&Refusal) -> Option<T>) {
        let is_wanted =
            |outcome: &Outcome| matches!(outcome, Outcome::Refused(refusal) if as_wanted(refusal).is_some());
        self.call(kind, repository, |_, outcome, _| is_wanted(outcome));
    }

    /// A manifest of which something more is wanted.
    fn push(&mut self, kind: Kind, wanted: impl Fn(&super::repositories::Push, &Model) -> bool) {
        self.call(kind, 0, |action, outcome, model| {
            matches!(action, Action::PutManifest(push) if wanted(push, model)) && *outcome == Outcome::Done
        });
    }

    /// Commits the upload that there is, with so much more.
    fn commit(&mut self, more: usize) {
        let last = Random(more as u64).bytes(more);
        self.step(Step::Commit { upload: 0, last, algorithm: Algorithm::Sha256 });
    }

    fn upload(&mut self, repository: u64, len: usize) {
        self.step(Step::Begin { algorithm: Algorithm::Sha256, repository: Some(repository) });
        self.step(Step::Append { upload: 0, content: Random(len as u64).bytes(len) });
    }
}

macro_rules! is {
    ($pattern:pat) => {
        |refusal| matches!(refusal, $pattern).then_some(())
    };
}

/// The history.
pub fn tour() -> Vec<Step> {
    use Kind::*;
    let mut tour = Tour { pair: Pair::new(&SimVfs::new()).expect("a working disk"), steps: Vec::new() };
    let t = &mut tour;
    t.call(Create, 0, |action, _, _| matches!(action, Action::Create(settings) if *settings == Settings::default()));
    t.done(Create, 1);
    for long in [false, true, true] {
        t.call(Put, 0, |action, outcome, _| {
            matches!(action, Action::Put { content, .. } if (content.len() > 2048) == long) && *outcome == Outcome::Done
        });
    }
    t.upload(0, 3000);
    t.commit(0);
    t.push(Image, |push, _| push.tags.len() == 2 && push.blobs.len() > 2);
    t.push(Image, |push, model| {
        push.subject.is_some()
            && push
                .blobs
                .iter()
                .any(|(blob, optional)| *optional && !model.repositories["team/app"].links.contains_key(blob))
    });
    t.push(Image, |push, model| {
        let links = &model.repositories["team/app"].links;
        push.awaits && push.blobs.iter().any(|(blob, optional)| !optional && !links.contains_key(blob))
    });
    t.push(Document, |push, _| !push.blobs.is_empty() && !push.manifests.is_empty() && !push.tags.is_empty());
    t.push(Index, |push, model| {
        push.sparse && push.manifests.iter().any(|one| !model.repositories["team/app"].manifests.contains_key(one))
    });
    t.push(Index, |push, model| {
        let manifests = &model.repositories["team/app"].manifests;
        push.manifests.iter().any(|one| manifests.get(one).is_some_and(|one| one.media_type == super::registry::INDEX))
    });
    t.refused(Image, 0, is!(Refusal::Missing { .. }));
    t.done(Again, 0);
    let is_compared = |action: &Action| matches!(action, Action::Tag { expect: ExpectTag::Is(_), .. });
    t.call(Tag, 0, |action, outcome, _| is_compared(action) && *outcome == Outcome::Done);
    t.refused(Tag, 0, is!(Refusal::TagMoved(..)));
    t.call(Set, 0, |action, _, _| matches!(action, Action::Set(settings) if settings.immutable));
    t.refused(Image, 0, is!(Refusal::TagImmutable(..)));
    t.call(Mount, 1, |action, outcome, _| {
        matches!(action, Action::Mount { from, .. } if from == "team/app") && *outcome == Outcome::Done
    });
    t.refused(RemoveBlob, 0, is!(Refusal::BlobInUse(..)));
    t.done(RemoveBlob, 1);
    for is_set in [true, true, false] {
        t.call(Policy, 0, |action, outcome, _| {
            matches!(action, Action::Document { content, .. } if content.is_some() == is_set)
                && *outcome == Outcome::Done
        });
        if is_set {
            t.refused(Policy, 0, is!(Refusal::DocumentChanged(..)));
        }
    }
    t.refused(Policy, 0, is!(Refusal::DocumentNotFound(..)));
    t.done(Put, 1);
    t.done(Put, 1);
    t.call(Pull, 0, |_, outcome, _| matches!(outcome, Outcome::Found(_)));
    // An index with what it holds; again by a push of it, then of one that holds it.
    let goes_along = |action: &Action, model: &Model, count: usize| {
        let Action::Archive { digest, .. } = action else { return false };
        let manifests = &model.repositories["team/app"].manifests;
        let is_held = |held: &Held| matches!(held, Held::Manifest(one) if manifests.contains_key(one));
        manifests.get(digest).is_some_and(|one| one.held.iter().filter(|held| is_held(held)).count() >= count)
    };
    t.call(Archive, 0, |action, outcome, model| *outcome == Outcome::Done && goes_along(action, model, 1));
    t.refused(Pull, 0, is!(Refusal::Archived(..)));
    t.refused(Archive, 0, is!(Refusal::ManifestInUse(..)));
    t.call(Restore, 0, |action, outcome, model| *outcome == Outcome::Done && goes_along(action, model, 1));
    t.call(Archive, 0, |action, outcome, model| *outcome == Outcome::Done && goes_along(action, model, 1));
    t.call(Again, 0, |action, outcome, model| {
        let Action::PutManifest(push) = action else { return false };
        let known = model.repositories["team/app"].manifests.get(&push.digest());
        *outcome == Outcome::Done && known.is_some_and(|known| known.archived)
    });
    t.call(Archive, 0, |_, outcome, _| *outcome == Outcome::Done);
    t.push(Index, |push, model| {
        let manifests = &model.repositories["team/app"].manifests;
        push.manifests.iter().any(|one| manifests.get(one).is_some_and(|one| one.archived))
    });
    t.step(Step::Wait(20_000));
    t.call(Claim, 1, |_, outcome, _| *outcome == Outcome::Count(0));
    t.step(Step::Checkpoint);
    t.done(Untag, 0);
    t.refused(DeleteManifest, 0, is!(Refusal::ManifestInUse(..)));
    t.done(DeleteManifest, 0);
    t.call(DeleteBatch, 0, |_, outcome, _| {
        matches!(outcome, Outcome::Each(each) if each.len() > 2 && each.iter().filter(|one| one.is_none()).count() == 2)
    });
    t.call(Act, 0, |action, outcome, _| {
        let Action::Act(actions) = action else { return false };
        let is = |wanted| actions.iter().any(|(_, action)| *action == wanted);
        let both = is(ImageAction::Expire) && is(ImageAction::Archive);
        both && matches!(outcome, Outcome::Each(each) if each.iter().filter(|one| one.is_none()).count() >= 2)
    });
    t.call(Pull, 0, |_, outcome, _| matches!(outcome, Outcome::Found(_)));
    t.step(Step::Wait(100_000));
    // One is expired now, and the one that was claimed is not. What that leaves, and deleted manifests' documents, are
    // dead.
    t.step(Step::ExpireBlobs);
    t.step(Step::Collect(0));
    t.refused(Delete, 0, is!(Refusal::NotEmpty));
    t.upload(1, 100);
    t.step(Step::Cancel(0));
    t.upload(0, 5000);
    t.call(Delete, 1, |action, outcome, _| {
        matches!(action, Action::Delete { with_contents: false }) && *outcome == Outcome::Done
    });
    t.done(Create, 2);
    t.done(ManyTags, 2);
    t.done(Delete, 2);
    t.step(Step::Reopen);
    t.done(Delete, 0);
    t.done(Create, 0);
    t.step(Step::Wait(120_000));
    t.step(Step::Put { content: Random(7).bytes(700), algorithm: Algorithm::Sha512 });
    let contents = [10, 700, 3000, 700].map(|len| Random(len as u64).bytes(len)).to_vec();
    t.step(Step::PutMany { contents, algorithm: Algorithm::Blake3 });
    t.step(Step::Wait(60_000));
    t.step(Step::Claim(vec![0, 1, 2, 3]));
    t.step(Step::Collect(0));
    // Short uploads: in one piece, in several, and one that becomes long.
    t.step(Step::Begin { algorithm: Algorithm::Sha256, repository: Some(0) });
    t.commit(700);
    t.upload(0, 800);
    t.step(Step::Append { upload: 0, content: Random(5).bytes(900) });
    t.step(Step::Reopen);
    t.commit(300);
    t.upload(0, 1500);
    t.step(Step::Append { upload: 0, content: Random(6).bytes(1500) });
    t.step(Step::Append { upload: 0, content: Random(7).bytes(100) });
    t.commit(0);
    tour.steps
}
