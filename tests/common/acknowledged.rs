//! A client of a repository and of named files, and what is there after what it was told is done.

use std::collections::BTreeMap;

use strongroom::registry::{PutManifest, Repository, RepositoryName};
use strongroom::{Algorithm, Digest, Error, ExpectNamed, Lsn, NamedFiles, PutNamed, Store};

use super::Random;
use super::registry::tag;

/// So many manifests a client keeps at most.
const MANIFESTS: usize = 4;

/// One commit of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A manifest of one layer is pushed, under the client's tag.
    Push {
        manifest: Digest,
        layer: Digest,
    },
    Delete(Digest),
    Set(String, Digest),
    Remove(String),
}

/// What is there of a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub latest: Option<Digest>,
    /// Manifests, with their layers.
    pub manifests: BTreeMap<Digest, Digest>,
    pub named: BTreeMap<String, Digest>,
}

impl Held {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Push { manifest, layer } => {
                self.manifests.insert(*manifest, *layer);
                self.latest = Some(*manifest);
            }
            Change::Delete(manifest) => drop(self.manifests.remove(manifest)),
            Change::Set(name, digest) => drop(self.named.insert(name.clone(), *digest)),
            Change::Remove(name) => drop(self.named.remove(name)),
        }
    }

    pub fn after<'a>(changes: impl IntoIterator<Item = &'a Change>) -> Self {
        let mut held = Self::default();
        changes.into_iter().for_each(|change| held.apply(change));
        held
    }

    /// What a store has of a client. All blobs that this references are read.
    pub fn by(store: &Store, name: &RepositoryName) -> Self {
        let mut held = Self::default();
        for file in store.named().iter(&prefix(name)) {
            let found = store.named().get(&file.unwrap().name).unwrap();
            found.blob.verify().unwrap();
            held.named.insert(found.file.name.clone(), found.file.digest);
        }
        let repository = match store.repository(name) {
            Err(Error::RepositoryNotFound { .. }) => return held,
            found => found.unwrap(),
        };
        held.latest = match repository.resolve(&tag("latest")) {
            Err(Error::ManifestNotFound { .. }) => None,
            found => Some(found.unwrap().digest),
        };
        for info in repository.manifests(None, 1000).unwrap().items {
            let manifest = repository.get_manifest(&info.digest.into()).unwrap();
            let layer = str::from_utf8(&manifest.content).unwrap().split(' ').next_back().unwrap().parse().unwrap();
            repository.get(&layer).unwrap().verify().unwrap();
            held.manifests.insert(info.digest, layer);
        }
        held
    }
}

fn prefix(name: &RepositoryName) -> String {
    format!("{name}/")
}

/// A client that makes one change after the other.
pub struct Client {
    repository: Repository,
    files: NamedFiles,
    prefix: String,
    random: Random,
    held: Held,
}

/// A change, and the content that it takes.
pub struct Planned {
    pub change: Change,
    content: Vec<u8>,
    document: String,
}

impl Client {
    /// A client that goes on from what is there.
    pub fn new(store: &Store, repository: Repository, random: Random) -> Self {
        let name = repository.name().clone();
        let held = Held::by(store, &name);
        Self { repository, files: store.named(), prefix: prefix(&name), random, held }
    }

    pub fn plan(&mut self) -> Planned {
        let is_old = |manifest: &&Digest| Some(**manifest) != self.held.latest;
        let old = self.held.manifests.keys().find(is_old).filter(|_| self.held.manifests.len() > MANIFESTS);
        if let Some(old) = old {
            return Planned { change: Change::Delete(*old), content: Vec::new(), document: String::new() };
        }
        let len = [100, 3000, 3000, 20_000, 20_000, 300_000][self.random.below(6) as usize];
        let content = self.random.bytes(len);
        let digest = Digest::of(Algorithm::Sha256, &content);
        if self.random.below(3) > 0 {
            let document = format!("{}{} {digest}", self.prefix, self.random.next());
            let manifest = Digest::of(Algorithm::Sha256, document.as_bytes());
            return Planned { change: Change::Push { manifest, layer: digest }, content, document };
        }
        let name = format!("{}{}", self.prefix, self.random.below(5));
        let change = match self.held.named.contains_key(&name) && self.random.below(3) == 0 {
            true => Change::Remove(name),
            false => Change::Set(name, digest),
        };
        Planned { change, content, document: String::new() }
    }

    /// Makes the change, and returns its commit.
    pub fn carry_out(&mut self, planned: &Planned) -> Lsn {
        let lsn = match &planned.change {
            Change::Push { .. } => self.push(planned),
            Change::Delete(manifest) => self.repository.delete_manifest(manifest).unwrap(),
            Change::Set(name, _) => self.files.put(name, &planned.content, PutNamed::new()).unwrap().lsn,
            Change::Remove(name) => self.files.remove(name, ExpectNamed::Any).unwrap(),
        };
        self.held.apply(&planned.change);
        lsn
    }

    fn push(&self, planned: &Planned) -> Lsn {
        loop {
            let layer = self.repository.put(&planned.content, Algorithm::Sha256).unwrap().digest;
            let manifest = PutManifest::new("text/plain").references([layer], []).tag(tag("latest"));
            match self.repository.put_manifest(&planned.document, manifest) {
                Err(Error::ReferencesMissing { .. }) => {} // it took longer than the grace period
                pushed => return pushed.unwrap().lsn,
            }
        }
    }
}
