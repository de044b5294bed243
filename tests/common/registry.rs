//! Manifests and names for tests of repositories.

use strongroom::registry::{RepositoryName, Tag};
use strongroom::vfs::SimVfs;
use strongroom::{Clock, Digest, Options};

pub const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn name(name: &str) -> RepositoryName {
    name.parse().expect("a repository's name")
}

pub fn tag(tag: &str) -> Tag {
    tag.parse().expect("a tag")
}

/// Options under which a short history makes many log files, folds and merges.
pub fn options(disk: &SimVfs, clock: &Clock) -> Options {
    super::options(disk, clock)
}

fn descriptor(media_type: &str, digest: &Digest) -> String {
    format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":1}}"#)
}

fn subject(subject: Option<&Digest>) -> String {
    subject.map_or_else(String::new, |digest| format!(r#","subject":{}"#, descriptor(IMAGE, digest)))
}

/// An image: its media type and the document. The first blob is its config, the others are layers.
pub fn image(blobs: &[Digest], of: Option<&Digest>) -> (&'static str, String) {
    let (config, layers) = blobs.split_first().expect("a config");
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let config = descriptor("application/vnd.oci.image.config.v1+json", config);
    let (layers, subject) = (layers.join(","), subject(of));
    (IMAGE, format!(r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{config},"layers":[{layers}]{subject}}}"#))
}

/// An index: its media type and the document.
pub fn index(manifests: &[Digest], of: Option<&Digest>) -> (&'static str, String) {
    let manifests: Vec<_> = manifests.iter().map(|manifest| descriptor(IMAGE, manifest)).collect();
    let (manifests, subject) = (manifests.join(","), subject(of));
    (INDEX, format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{manifests}]{subject}}}"#))
}
