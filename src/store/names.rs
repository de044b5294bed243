//! Opening the view of names, and reading it from the facts again.

use std::sync::MutexGuard;

use crate::error::Result;
use crate::facts::{Family, TagFact, decoded};
use crate::id::DomainId;
use crate::names::{NameKind, tag_name};
use crate::store::Inner;
use crate::sync::lock;
use crate::tables::Snapshot;

impl Inner {
    /// Opens the view of names or reads them from the facts again, if that is due. Where those are damaged, whoever
    /// asks for names meets that.
    pub(crate) fn refresh_names(&self) {
        // One at a time: a second one would bring the names of an older moment, or to a view that the first is about to
        // replace.
        if let Ok(one) = self.names_refresh.try_lock() {
            self.refresh_names_as(&one);
        }
    }

    fn refresh_names_as(&self, _one: &MutexGuard<'_, ()>) {
        if !self.names.needs_rebuild() || !self.names.prepare() {
            return;
        }
        let snapshots: Vec<Snapshot> = self.tables.snapshot().each_domain().collect();
        // One after the other: each looks through all facts that no run has.
        let names = snapshots.iter().flat_map(|snapshot| -> Box<dyn Iterator<Item = _>> {
            match names_of(snapshot) {
                Ok(names) => Box::new(names),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        match self.names.rebuild(names) {
            Ok(()) => {}
            Err(error) if error.is_shortage() => self.names.put_off(),
            Err(_) => self.names.give_up(),
        }
    }

    /// Has the view of names written anew, with the keys as they are.
    pub(crate) fn renew_names(&self) {
        // Whoever is opening or rebuilding it does so with the keys of before.
        let one = lock(&self.names_refresh);
        self.names.restart(self.options.names_on_disk.then(|| self.files.layout().names()));
        self.refresh_names_as(&one);
    }
}

/// All names that facts of the snapshot's domain have.
fn names_of(snapshot: &Snapshot) -> Result<impl Iterator<Item = Result<(DomainId, NameKind, String)>> + '_> {
    let domain = snapshot.domain;
    let pins = snapshot.pins()?.map(move |pin| Ok((domain, NameKind::Pin, pin?.name)));
    let repositories = snapshot.repositories()?;
    let repositories = repositories.map(move |repository| Ok((domain, NameKind::Repository, repository?.name)));
    let tags = snapshot.facts(Family::Tag, [0; 32])?.map(move |fact| {
        let (key, value) = fact?;
        let tag = decoded(TagFact::decode(value.as_bytes()))?.tag;
        Ok((domain, NameKind::Tag, tag_name(key.repository_id(), &tag)))
    });
    Ok(pins.chain(repositories).chain(tags))
}
