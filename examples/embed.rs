//! The storage trait of a registry, of the kind that programs already have, on strongroom: text keys to bytes, uploads
//! in pieces, and a pull-through cache. `cargo run --example embed`

use std::io::Read;

use strongroom::registry::{Manifest, PutManifest, Reference, Repository, RepositorySettings};
use strongroom::{
    Algorithm, Blob, Digest, Error, ErrorKind, ExpectNamed, NamedFile, NamedFiles, Options, Page, PutNamed, Result,
    Store, UploadId,
};

/// What a registry of packages asks of its storage.
trait Storage {
    fn get(&self, key: &str) -> Result<Option<Blob>>;
    fn put(&self, key: &str, content: impl Read) -> Result<NamedFile>;
    fn delete(&self, key: &str) -> Result<bool>;
    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page<NamedFile, String>>;
    fn stat(&self, key: &str) -> Result<Option<NamedFile>>;
    fn begin_upload(&self) -> Result<UploadId>;
    /// Returns the length of what has arrived, all of it durable.
    fn append_upload(&self, id: UploadId, piece: impl Read) -> Result<u64>;
    fn commit(&self, id: UploadId, key: &str, digest: &Digest) -> Result<NamedFile>;
}

/// Nothing under that name is no failure here.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

struct Embedded(NamedFiles);

impl Storage for Embedded {
    fn get(&self, key: &str) -> Result<Option<Blob>> {
        Ok(found(self.0.get(key))?.map(|file| file.blob))
    }

    fn put(&self, key: &str, content: impl Read) -> Result<NamedFile> {
        Ok(self.0.put_reader(key, content, PutNamed::new())?.file)
    }

    fn delete(&self, key: &str) -> Result<bool> {
        Ok(found(self.0.remove(key, ExpectNamed::Any))?.is_some())
    }

    fn list(&self, prefix: &str, after: Option<&str>) -> Result<Page<NamedFile, String>> {
        self.0.list(prefix, after, 1000)
    }

    fn stat(&self, key: &str) -> Result<Option<NamedFile>> {
        found(self.0.stat(key))
    }

    fn begin_upload(&self) -> Result<UploadId> {
        self.0.begin_upload(Algorithm::Sha256)
    }

    fn append_upload(&self, id: UploadId, piece: impl Read) -> Result<u64> {
        self.0.append_upload_from(id, None, piece)
    }

    fn commit(&self, id: UploadId, key: &str, digest: &Digest) -> Result<NamedFile> {
        Ok(self.0.put_upload(key, id, digest, PutNamed::new())?.file)
    }
}

/// Where a pull-through cache has from what it does not have.
trait Upstream {
    fn manifest(&self, reference: &Reference) -> Result<(String, Vec<u8>)>;
    fn blob(&self, digest: &Digest) -> Result<impl Read>;
}

struct Cache<U> {
    repository: Repository,
    upstream: U,
}

impl<U: Upstream> Cache<U> {
    /// Stored before what it references is: it holds each manifest and blob from when that is fetched.
    fn manifest(&self, reference: &Reference) -> Result<Manifest> {
        if let Some(cached) = found(self.repository.pull_manifest(reference))? {
            return Ok(cached);
        }
        let (media_type, document) = self.upstream.manifest(reference)?;
        let put = PutManifest::new(media_type).allow_missing_manifests().allow_missing_blobs();
        let put = match reference {
            Reference::Tag(tag) => put.tag(tag.clone()),
            Reference::Digest(digest) => put.expect(digest),
        };
        let pushed = self.repository.put_manifest(document, put)?;
        self.repository.pull_manifest(&pushed.digest.into())
    }

    /// What has another digest than was asked for is refused.
    fn blob(&self, digest: &Digest) -> Result<Blob> {
        if let Some(cached) = found(self.repository.get(digest))? {
            return Ok(cached);
        }
        self.repository.put_reader(self.upstream.blob(digest)?, digest)?;
        self.repository.get(digest)
    }
}

/// Another store plays the registry that is cached.
impl Upstream for Repository {
    fn manifest(&self, reference: &Reference) -> Result<(String, Vec<u8>)> {
        let manifest = self.get_manifest(reference)?;
        Ok((manifest.media_type, manifest.content.to_vec()))
    }

    fn blob(&self, digest: &Digest) -> Result<impl Read> {
        Ok(self.get(digest)?.reader())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let store: Store = Options::new().create(true).open(dir.path().join("store"))?;
    let storage = Embedded(store.named());

    storage.put("npm/left-pad/index.json", &b"[]"[..])?;
    let id = storage.begin_upload()?;
    storage.append_upload(id, &b"an "[..])?;
    assert_eq!(storage.append_upload(id, &b"archive"[..])?, 10);
    let digest = Digest::of(Algorithm::Sha256, b"an archive");
    assert_eq!(storage.commit(id, "npm/left-pad/1.0.tgz", &digest)?.len, 10);
    let names: Vec<String> = storage.list("npm/", None)?.items.into_iter().map(|file| file.name).collect();
    assert_eq!(names, ["npm/left-pad/1.0.tgz", "npm/left-pad/index.json"]);
    assert_eq!(storage.get("npm/left-pad/1.0.tgz")?.ok_or("it is there")?.bytes()?, "an archive");
    assert!(storage.delete("npm/left-pad/1.0.tgz")? && storage.stat("npm/left-pad/1.0.tgz")?.is_none());

    let upstream = store.create_repository(&"upstream/app".parse()?, RepositorySettings::new())?;
    let layer = upstream.put("a layer", Algorithm::Sha256)?.digest;
    let document = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{layer}"}},"layers":[]}}"#);
    let put = PutManifest::new("application/vnd.oci.image.manifest.v1+json").tag("v1".parse()?);
    upstream.put_manifest(&document, put)?;
    let repository = store.create_repository(&"cache/app".parse()?, RepositorySettings::new())?;
    let cache = Cache { repository, upstream };
    assert_eq!(cache.manifest(&Reference::Tag("v1".parse()?))?.content, document);
    assert_eq!(cache.blob(&layer)?.bytes()?, "a layer");
    assert!(cache.repository.stat(&layer).is_ok());
    let unknown = Digest::of(Algorithm::Sha256, b"nobody has this");
    assert!(matches!(cache.blob(&unknown), Err(Error::BlobNotFound { .. })));
    println!("stored, listed, uploaded, cached: {} blobs", store.usage()?.blobs);
    store.close()?;
    Ok(())
}
