//! Manifests as files have them: without the media type that a client would send.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::digest::Digest;
use crate::error::{Error, ManifestProblem};
use crate::oci::document::{Document, OCI_INDEX, OCI_MANIFEST};
use crate::transfer::document::parse;
use crate::transfer::registries::Reason;

/// What tells the kinds of documents apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
    fs_layers: Option<IgnoredAny>,
}

/// A manifest that was read.
#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) media_type: String,
    pub(crate) content: Vec<u8>,
    pub(crate) document: Document,
}

impl Read {
    /// Verifies and parses a document. The media type is the one that it says it has, else the one that its descriptor
    /// says, else that of OCI documents of its shape.
    pub(crate) fn new(digest: Digest, content: Vec<u8>, said: Option<&str>) -> Result<Self, Reason> {
        let found = Digest::of(digest.algorithm(), &content);
        if found != digest {
            return Err(Reason::WrongDigest { found });
        }
        let Some(shape) = parse::<Shape>(&content) else {
            return Err(Reason::InvalidManifest { problem: ManifestProblem::Syntax { line: 1, column: 1 } });
        };
        let Shape { media_type, config, manifests, fs_layers } = shape;
        let by_shape = match (fs_layers, manifests, config) {
            (Some(_), _, _) => return Err(Reason::OldManifest),
            (None, Some(_), None) => Some(OCI_INDEX),
            (None, None, Some(_)) => Some(OCI_MANIFEST),
            _ => None,
        };
        let media_type = media_type.filter(|said| !said.is_empty()).or_else(|| said.map(str::to_owned));
        let media_type = media_type.or_else(|| by_shape.map(str::to_owned)).unwrap_or_default();
        match Document::parse(&media_type, &content) {
            Ok(document) => Ok(Self { media_type, content, document }),
            Err(Error::InvalidManifest { problem }) => Err(Reason::InvalidManifest { problem }),
            Err(_) => Err(Reason::InvalidManifest { problem: ManifestProblem::UnknownMediaType { media_type } }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;

    const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";

    fn read(content: &str, said: Option<&str>) -> Result<String, Reason> {
        let digest = Digest::of(Algorithm::Sha256, content.as_bytes());
        Read::new(digest, content.into(), said).map(|read| read.media_type)
    }

    #[test]
    fn the_media_type_is_what_the_document_says_else_its_descriptor_else_its_shape() {
        let digest = Digest::of(Algorithm::Sha256, b"");
        let image = format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":0}},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        let docker = image.replacen('{', &format!(r#"{{"mediaType":"{DOCKER}","#), 1);
        assert_eq!(read(&image, None).unwrap(), OCI_MANIFEST);
        assert_eq!(read(index, None).unwrap(), OCI_INDEX);
        assert_eq!(read(&image, Some(DOCKER)).unwrap(), DOCKER);
        assert_eq!(read(&docker, None).unwrap(), DOCKER);
        assert_eq!(read(&docker, Some(OCI_MANIFEST)).unwrap(), DOCKER);
    }

    #[test]
    fn what_is_no_manifest_is_told_from_what_is_an_old_one() {
        assert!(matches!(read(r#"{"schemaVersion":1,"fsLayers":[],"history":[]}"#, None), Err(Reason::OldManifest)));
        for bad in ["", "[]", "{}", "{", "\0", &"[".repeat(100_000), r#"{"mediaType":7}"#, r#"{"config":1,"config":2}"#]
        {
            assert!(matches!(read(bad, None), Err(Reason::InvalidManifest { .. })), "{bad:.20}");
        }
        let other = Digest::of(Algorithm::Sha256, b"other");
        assert!(matches!(Read::new(other, b"{}".to_vec(), None), Err(Reason::WrongDigest { .. })));
    }
}
