//! Pushing to a repository what files have of it: blobs, then manifests, children before their indexes, then tags.
//!
//! Each of them is skipped, and reported, where it is not what it should be; what is there already stays. So an import
//! that was interrupted goes on where it ended, and one that is repeated brings what has come since.
//!
//! The order keeps the invariants of the store without any trust in what is read: a manifest is pushed as a client
//! would push it, and holds what it references from the same commit on. A repository gets a blob only by content that
//! its source has: what other repositories of the store have is none of its.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::blobs::SourceFile;
use crate::digest::Digest;
use crate::error::{Error, is_shortage};
use crate::oci::{ExpectTag, Reference, Tag};
use crate::registry::{MAX_MANIFEST, PutManifest, Repository};
use crate::sync::lock;
use crate::transfer::error::TransferError;
use crate::transfer::media::Read;
use crate::transfer::path::TreePath;
use crate::transfer::progress::Counting;
use crate::transfer::registries::{Counts, Reason, RegistryImport};
use crate::transfer::space::Space;
use crate::transfer::tree::{Opened, Tree};
use crate::transfer::workers::for_each;

/// What of a repository is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob,
    Manifest,
}

/// A place that has content by digest.
pub(crate) trait Source: Sync {
    /// The path of content in the tree, or why there is none.
    fn path_of(&self, tree: &Mutex<&mut Tree>, kind: Kind, digest: &Digest) -> Result<Found<TreePath>, TransferError>;
}

/// Something, or why it is skipped; for no reason where the repository does not have it any more.
pub(crate) type Found<T> = std::result::Result<T, Option<Reason>>;

/// What there is of a repository.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) blobs: Vec<Digest>,
    /// Manifests, each once, and the media types that descriptors say they have.
    pub(crate) manifests: Vec<(Digest, Option<String>)>,
    pub(crate) tags: Vec<(Tag, Digest)>,
}

/// A push of what a tree has to one repository.
pub(crate) struct Push<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) source: &'a dyn Source,
    pub(crate) tree: Mutex<&'a mut Tree>,
    pub(crate) space: &'a Space,
    pub(crate) counting: &'a Counting<'a>,
    pub(crate) report: Mutex<&'a mut RegistryImport>,
}

/// What became of a manifest.
enum Pushed {
    Done,
    /// These have to be pushed first.
    Waits(Vec<Digest>),
}

impl Push<'_> {
    /// Pushes all of it.
    pub(crate) fn push(&self, contents: Contents) -> Result<(), TransferError> {
        let Contents { blobs, manifests, tags } = contents;
        let pushed = for_each(blobs, |digest, stop| self.push_blob(&digest, stop))
            .and_then(|()| self.push_manifests(manifests))
            .and_then(|()| for_each(tags, |(tag, digest), _| self.push_tag(&tag, &digest)));
        self.counting.unless_stopped(pushed)
    }

    /// Pushes manifests with all that they reference, and tags.
    pub(crate) fn push_reachable(&self, mut contents: Contents) -> Result<(), TransferError> {
        let (mut seen, mut blobs) = (HashSet::new(), HashSet::new());
        let mut ahead = std::mem::take(&mut contents.manifests);
        while let Some((digest, said)) = ahead.pop() {
            if !seen.insert(digest) {
                continue;
            }
            // What can't be read is reported when its turn has come.
            if let Ok(read) = self.read_manifest(&digest, said.as_deref())? {
                let document = read.document;
                blobs.extend(document.blobs.iter().chain(&document.others).map(|blob| blob.digest));
                ahead.extend(document.manifests.iter().map(|child| (child.digest, None)));
            }
            contents.manifests.push((digest, said));
        }
        contents.blobs = blobs.into_iter().collect();
        self.push(contents)
    }

    fn skip(&self, what: impl ToString, reason: impl Into<Option<Reason>>) {
        if let Some(reason) = reason.into() {
            lock(&self.report).skipped.add(self.repository.name().as_str(), what, reason);
        }
    }

    fn count(&self, of: impl FnOnce(&mut RegistryImport) -> &mut Counts, existed: bool) -> Result<(), TransferError> {
        let mut report = lock(&self.report);
        let counts = of(&mut report);
        *(if existed { &mut counts.existing } else { &mut counts.new }) += 1;
        drop(report);
        self.counting.item().map_err(|_| TransferError::Stopped)
    }

    /// Opens content, or says why it can't be had.
    fn open(&self, kind: Kind, digest: &Digest) -> Result<Found<Opened>, TransferError> {
        let path = match self.source.path_of(&self.tree, kind, digest)? {
            Ok(path) => path,
            Err(reason) => return Ok(Err(reason)),
        };
        let opened = open(&self.tree, &path)?;
        Ok(match opened {
            // What is stored already takes no space.
            Ok(opened) if !self.space.has(opened.len) && !self.repository.is_stored(digest)? => {
                Err(Some(Reason::NoSpace { len: opened.len }))
            }
            other => other,
        })
    }

    fn push_blob(&self, digest: &Digest, stop: &AtomicBool) -> Result<(), TransferError> {
        let is_there = match self.repository.claim(digest) {
            Ok(_) => true,
            // What is damaged is repaired by a push.
            Err(Error::BlobNotFound { .. } | Error::Corrupt { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        if !is_there {
            let opened = match self.open(Kind::Blob, digest)? {
                Ok(opened) => opened,
                Err(reason) => {
                    self.skip(digest, reason);
                    return Ok(());
                }
            };
            let watch = |bytes| self.counting.add_unless(stop, bytes);
            let file = SourceFile { file: &opened.file, len: opened.len, watch: &watch };
            match self.repository.put_source(file, digest) {
                Ok(_) => {}
                Err(Error::DigestMismatch { found, .. }) => {
                    self.skip(digest, Reason::WrongDigest { found });
                    return Ok(());
                }
                // A reader that is told to stop fails as well.
                Err(Error::Source { source }) if !stop.load(Ordering::Relaxed) && !self.counting.is_stopped() => {
                    self.skip(digest, Reason::Unreadable { problem: source.to_string() });
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
            lock(&self.report).bytes += opened.len;
        }
        self.count(|report| &mut report.blobs, is_there)
    }

    /// Pushes images side by side, then indexes of images, then indexes of indexes, one after the other.
    fn push_manifests(&self, manifests: Vec<(Digest, Option<String>)>) -> Result<(), TransferError> {
        let mut waiting = manifests;
        for _ in 0..2 {
            let pending: HashSet<Digest> = waiting.iter().map(|(digest, _)| *digest).collect();
            let still = Mutex::new(Vec::new());
            for_each(std::mem::take(&mut waiting), |(digest, said), _| {
                if let Pushed::Waits(_) = self.push_manifest(&digest, said.as_deref(), &pending)? {
                    lock(&still).push((digest, said));
                }
                Ok(())
            })?;
            waiting = std::mem::take(&mut *lock(&still));
        }
        self.push_nested(waiting)
    }

    fn push_nested(&self, manifests: Vec<(Digest, Option<String>)>) -> Result<(), TransferError> {
        let said: std::collections::HashMap<_, _> = manifests.iter().cloned().collect();
        let mut left: HashSet<Digest> = said.keys().copied().collect();
        let mut begun = HashSet::new();
        let none = HashSet::new();
        for (first, _) in manifests {
            let mut stack = vec![first];
            while let Some(digest) = stack.pop() {
                if !left.contains(&digest) {
                    continue;
                }
                // The second time nothing is waited for any more: what is named by digests has no cycles.
                let pending = if begun.insert(digest) { &left } else { &none };
                match self.push_manifest(&digest, said.get(&digest).and_then(Option::as_deref), pending)? {
                    Pushed::Waits(children) => {
                        stack.push(digest);
                        stack.extend(children);
                    }
                    Pushed::Done => drop(left.remove(&digest)),
                }
            }
        }
        Ok(())
    }

    /// Pushes a manifest, unless it references some that are pending.
    fn push_manifest(
        &self,
        digest: &Digest,
        said: Option<&str>,
        pending: &HashSet<Digest>,
    ) -> Result<Pushed, TransferError> {
        let read = match self.read_manifest(digest, said)? {
            Ok(read) => read,
            Err(reason) => {
                self.skip(digest, reason);
                return Ok(Pushed::Done);
            }
        };
        let children = read.document.manifests.iter().map(|child| child.digest);
        let waits: Vec<_> = children.filter(|child| child != digest && pending.contains(child)).collect();
        if !waits.is_empty() {
            return Ok(Pushed::Waits(waits));
        }
        match self.repository.manifest_info(&Reference::Digest(*digest)) {
            Ok(info) if !info.damaged => {
                self.count(|report| &mut report.manifests, true)?;
                return Ok(Pushed::Done);
            }
            Ok(_) | Err(Error::ManifestNotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        // An index of images of many platforms may be there without some: it is pulled for the others.
        let put = PutManifest::new(read.media_type).expect(*digest).allow_missing_manifests();
        match self.repository.put_manifest(&read.content, put) {
            Ok(_) => self.count(|report| &mut report.manifests, false)?,
            Err(Error::InvalidManifest { problem }) => self.skip(digest, Reason::InvalidManifest { problem }),
            Err(Error::ReferencesMissing { blobs, manifests, .. }) => {
                let count = blobs.len() + manifests.len();
                let first = blobs.into_iter().chain(manifests).next().unwrap_or(*digest);
                self.skip(digest, Reason::ReferencesMissing { count, first });
            }
            Err(error) => return Err(error.into()),
        }
        lock(&self.report).bytes += read.content.len() as u64;
        Ok(Pushed::Done)
    }

    /// Reads a manifest, verifies and parses it.
    pub(crate) fn read_manifest(&self, digest: &Digest, said: Option<&str>) -> Result<Found<Read>, TransferError> {
        let Opened { file, len, .. } = match self.open(Kind::Manifest, digest)? {
            Ok(opened) => opened,
            Err(reason) => return Ok(Err(reason)),
        };
        if len > MAX_MANIFEST as u64 {
            return Ok(Err(Some(Reason::TooLong { len })));
        }
        let mut content = Vec::new();
        if let Err(error) = self.counting.count(file.take(len)).read_to_end(&mut content) {
            if self.counting.is_stopped() {
                return Err(TransferError::Stopped);
            }
            return Ok(Err(Some(Reason::Unreadable { problem: error.to_string() })));
        }
        Ok(Read::new(*digest, content, said).map_err(Some))
    }

    fn push_tag(&self, tag: &Tag, digest: &Digest) -> Result<(), TransferError> {
        let before = match self.repository.resolve(tag) {
            Err(Error::ManifestNotFound { .. }) => None,
            other => Some(other?.digest),
        };
        if before == Some(*digest) {
            return self.count(|report| &mut report.tags, true);
        }
        match self.repository.tag(tag, digest, ExpectTag::Any) {
            Err(Error::ManifestNotFound { .. }) => self.skip(tag, Reason::ManifestMissing { digest: *digest }),
            Err(Error::TagImmutable { digest, .. }) => self.skip(tag, Reason::Immutable { digest }),
            other => {
                let _ = other?;
                return self.count(|report| &mut report.tags, false);
            }
        }
        Ok(())
    }
}

/// Opens a file, or says why it can't be read. That one file can't be does not end the import of the others.
pub(crate) fn open(tree: &Mutex<&mut Tree>, path: &TreePath) -> Result<Found<Opened>, TransferError> {
    let opened = lock(tree).open_file(path);
    match opened {
        Ok(opened) => Ok(opened.ok_or(Some(Reason::Missing))),
        // Without descriptors or memory, no other file can be read either.
        Err(TransferError::File { source, .. }) if source.kind() == ErrorKind::WouldBlock || !is_shortage(&source) => {
            Ok(Err(Some(Reason::Unreadable { problem: source.to_string() })))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::path::Path;

    use super::*;
    use crate::digest::Algorithm;
    use crate::oci::RepositorySettings;
    use crate::store::Options;

    /// Content whose digest is that of the name of its file.
    struct Names(&'static [&'static str]);

    impl Source for Names {
        fn path_of(&self, _: &Mutex<&mut Tree>, _: Kind, digest: &Digest) -> Result<Found<TreePath>, TransferError> {
            let name = self.0.iter().find(|name| of(name) == *digest).unwrap();
            Ok(Ok(TreePath::new(*name)?))
        }
    }

    fn of(name: &str) -> Digest {
        Digest::of(Algorithm::Sha256, name.as_bytes())
    }

    #[test]
    fn a_blob_whose_reading_fails_is_skipped_and_the_others_are_imported() {
        // A file of the kernel's that can be opened, is 4 KiB long, and fails when it is read.
        let from = Path::new("/sys/devices/virtual/net/lo");
        if std::fs::read(from.join("speed")).is_ok() || !from.join("speed").exists() {
            eprintln!("skipped: there is no such file here");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        for inline_max in [0, 1 << 20] {
            let store = dir.path().join(inline_max.to_string());
            let store = Options::new().create(true).inline_max(inline_max).open(store).unwrap();
            let repository = store.create_repository(&"app".parse().unwrap(), RepositorySettings::new()).unwrap();
            let (mut tree, mut report) = (Tree::open(from).unwrap(), RegistryImport::default());
            let push = Push {
                repository: &repository,
                source: &Names(&["speed", "type"]),
                tree: Mutex::new(&mut tree),
                space: &Space::at(store.root()),
                counting: &Counting::new(&|_| ControlFlow::Continue(())),
                report: Mutex::new(&mut report),
            };
            let blobs = vec![of("speed"), of("type")];
            push.push(Contents { blobs, ..Contents::default() }).unwrap();
            let mut listed = Vec::from_iter(report.skipped.listed());
            listed.sort_by_key(|skipped| skipped.what != of("speed").to_string());
            assert!(matches!(listed[0].reason, Reason::Unreadable { .. }), "{listed:?}");
            assert!(matches!(listed[1].reason, Reason::WrongDigest { .. }), "it was read: {listed:?}");
            assert_eq!((listed.len(), &*listed[0].repository), (2, "app"));
        }
    }
}
