//! The view of names in an open store: the facts to rebuild it from, and its thread.

use std::sync::MutexGuard;
use std::time::Duration;

use crate::error::Result;
use crate::facts::TagFact;
use crate::id::DomainId;
use crate::names::{NameKind, tag_name};
use crate::store::{Inner, Maintenance};
use crate::sync::lock;
use crate::tables::Snapshot;

/// The thread of the names: works when told to, and looks after them now and then.
pub(super) fn run_thread(inner: &Inner) {
    let _serving = inner.names.serve();
    while inner.names.wait(Duration::from_secs(1)) {
        inner.keep_names();
    }
}

impl Inner {
    /// Does what is due for the names.
    pub(super) fn keep_names(&self) {
        self.refresh_names();
        self.names.maintain();
    }

    /// Opens the view of names or reads them from the facts again, if that is due. Where those are damaged, whoever
    /// asks for names meets that.
    pub(crate) fn refresh_names(&self) {
        // One at a time: two would do the same.
        if let Ok(one) = self.names_refresh.try_lock() {
            self.refresh_names_as(&one);
        }
    }

    fn refresh_names_as(&self, _one: &MutexGuard<'_, ()>) {
        if !self.names.needs_rebuild() {
            return;
        }
        let Some(backend) = self.names.prepare() else { return };
        let snapshots: Vec<Snapshot> = self.tables.snapshot().each_domain().collect();
        // One after the other: each looks through all facts that no run has.
        let names = snapshots.iter().flat_map(|snapshot| -> Box<dyn Iterator<Item = _>> {
            match names_of(snapshot) {
                Ok(names) => Box::new(names),
                Err(error) => Box::new(std::iter::once(Err(error))),
            }
        });
        let _ = self.names.rebuild(backend, names);
    }

    /// Has the view of names written anew, with the keys as they are. What was written before is gone when this
    /// returns.
    pub(crate) fn renew_names(&self) {
        self.names.restart(self.options.names_on_disk.then(|| self.files.layout().names()));
        if self.options.maintenance == Maintenance::Inline {
            self.refresh_names_as(&lock(&self.names_refresh));
        }
    }
}

#[cfg(test)]
impl crate::store::Store {
    /// The view, for tests of it.
    pub(crate) fn names(&self) -> &crate::names::Names {
        &self.open.inner.names
    }

    /// Does what is due for it.
    pub(crate) fn keep_names(&self) {
        self.open.inner.keep_names();
    }
}

/// All names that facts of the snapshot's domain have.
fn names_of(snapshot: &Snapshot) -> Result<impl Iterator<Item = Result<(DomainId, NameKind, String)>> + '_> {
    let domain = snapshot.domain;
    let files = snapshot.named_files()?.map(move |file| Ok((domain, NameKind::Named, file?.name)));
    let repositories = snapshot.repositories()?;
    let repositories = repositories.map(move |repository| Ok((domain, NameKind::Repository, repository?.name)));
    let tags = snapshot.all::<TagFact>()?.map(move |fact| {
        let (key, tag) = fact?;
        Ok((domain, NameKind::Tag, tag_name(key.repository_id(), &tag.tag)))
    });
    Ok(files.chain(repositories).chain(tags))
}
