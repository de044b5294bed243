//! What damage to blobs affects: repositories, manifests, tags, named files. Searched only where there is damage, one
//! repository after the other.

use std::collections::{BTreeSet, HashMap};

use crate::check::report::{Affected, MOST_AFFECTED};
use crate::check::scrub::Scrubber;
use crate::digest::Digest;
use crate::error::Result;
use crate::facts::find;
use crate::facts::{Family, Held, Key, LinkFact, ManifestFact, Prefix, RepositoryFact, TagFact};
use crate::tables::Snapshot;

/// The damaged blobs, by their keys: their numbers in the report.
type Damaged = HashMap<Key, usize>;

/// What one repository has to do with damaged blobs.
#[derive(Default)]
struct Hits {
    /// The repository has the blob.
    linked: BTreeSet<usize>,
    /// A manifest is, or holds, the blob.
    holders: HashMap<usize, BTreeSet<Digest>>,
    /// The manifests that hold a manifest.
    over: HashMap<Digest, Vec<Digest>>,
}

impl Scrubber<'_> {
    /// Completes the list of damaged blobs by what is affected, and by digests that only references tell.
    pub(super) fn find_affected(&mut self) -> Result<()> {
        let damaged: Damaged = self.keys.iter().enumerate().map(|(number, key)| (*key, number)).collect();
        let mut room = MOST_AFFECTED;
        let snapshots: Vec<Snapshot> = self.inner.tables.snapshot().each_domain().collect();
        for snapshot in snapshots {
            if !damaged.keys().any(|key| key.domain == snapshot.domain) {
                continue;
            }
            self.find_named(&snapshot, &damaged, &mut room)?;
            for repository in snapshot.repositories()? {
                let repository = repository?;
                let hits = self.hits(&snapshot, &repository, &damaged)?;
                self.add_affected(&snapshot, &repository, hits, &mut room)?;
            }
        }
        Ok(())
    }

    fn find_named(&mut self, snapshot: &Snapshot, damaged: &Damaged, room: &mut usize) -> Result<()> {
        for file in snapshot.named_files()? {
            let file = file?;
            let mut numbers = BTreeSet::new();
            for digest in file.held() {
                numbers.extend(self.is_damaged(&Key::blob(snapshot.domain, digest), digest, damaged));
            }
            for number in numbers {
                let has_room = self.take(room, 1);
                if let Some(blob) = self.report.damaged.get_mut(number).filter(|_| has_room) {
                    blob.named.push(file.name.clone());
                }
            }
        }
        Ok(())
    }

    /// The number of a blob, if it is damaged. Its digest is noted, should it not be known.
    fn is_damaged(&mut self, key: &Key, digest: &Digest, damaged: &Damaged) -> Option<usize> {
        let number = *damaged.get(key)?;
        if let Some(blob) = self.report.damaged.get_mut(number) {
            blob.digest.get_or_insert(*digest);
        }
        Some(number)
    }

    fn hits(&mut self, snapshot: &Snapshot, repository: &RepositoryFact, damaged: &Damaged) -> Result<Hits> {
        let mut hits = Hits::default();
        for fact in snapshot.all_of::<LinkFact>(repository.id)? {
            let (key, link) = fact?;
            hits.linked.extend(damaged.get(&link.blob(&key)));
        }
        for fact in snapshot.all_of::<ManifestFact>(repository.id)? {
            let (_, manifest) = fact?;
            let held = manifest.held.iter().filter_map(|held| match held {
                Held::Blob(digest) => Some(digest),
                Held::Manifest(_) => None,
            });
            for digest in held.chain([&manifest.digest]) {
                if let Some(number) = self.is_damaged(&Key::blob(snapshot.domain, digest), digest, damaged)
                    && find::awaited(snapshot, repository.id, &Held::Blob(*digest))?.is_none()
                {
                    hits.holders.entry(number).or_default().insert(manifest.digest);
                }
            }
            for held in manifest.held.iter().filter_map(Held::manifest) {
                hits.over.entry(held).or_default().push(manifest.digest);
            }
        }
        Ok(hits)
    }

    fn add_affected(
        &mut self,
        snapshot: &Snapshot,
        repository: &RepositoryFact,
        mut hits: Hits,
        room: &mut usize,
    ) -> Result<()> {
        let numbers: BTreeSet<usize> = hits.linked.iter().chain(hits.holders.keys()).copied().collect();
        for number in numbers {
            let mut manifests = hits.holders.remove(&number).unwrap_or_default();
            let mut due: Vec<Digest> = manifests.iter().copied().collect();
            while let Some(digest) = due.pop() {
                let over = hits.over.get(&digest).into_iter().flatten();
                due.extend(over.filter(|digest| manifests.insert(**digest)));
            }
            let mut tags = BTreeSet::new();
            for digest in &manifests {
                tags.extend(tags_of(snapshot, repository, digest)?);
            }
            if !self.take(room, 1 + manifests.len() + tags.len()) {
                continue;
            }
            let tags = tags.iter().map(|tag| tag.parse()).collect::<Result<_>>()?;
            let (repository, manifests) = (repository.name.parse()?, manifests.into_iter().collect());
            if let Some(blob) = self.report.damaged.get_mut(number) {
                blob.affected.push(Affected { repository, manifests, tags });
            }
        }
        Ok(())
    }

    /// Whether so many more fit into the report.
    fn take(&mut self, room: &mut usize, count: usize) -> bool {
        let left = room.checked_sub(count);
        self.report.all_listed &= left.is_some();
        *room = left.unwrap_or(*room);
        left.is_some()
    }
}

fn tags_of(snapshot: &Snapshot, repository: &RepositoryFact, digest: &Digest) -> Result<Vec<String>> {
    let mut tags = Vec::new();
    for fact in snapshot.scan_all(Prefix::under(snapshot.domain, Family::TagOf, repository.id, digest))? {
        let tag = String::from_utf8_lossy(fact?.1.as_bytes()).into_owned();
        let named: Option<TagFact> = find::tag(snapshot, repository.id, &tag)?;
        tags.extend(named.filter(|named| named.digest == *digest).map(|named| named.tag));
    }
    Ok(tags)
}
