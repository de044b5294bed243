//! Parsing manifests: what they reference, by the documents of the OCI and Docker specifications.

use std::collections::BTreeMap;

use serde::de::MapAccess;

use crate::digest::Digest;
use crate::error::{Error, ManifestProblem, Result};
use crate::oci::json::{self, Fields, Value};

/// An OCI image manifest.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// A Docker image manifest, version 2, schema 2.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// A Docker manifest list.
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// The beginnings of the media types of layers that registries need not have.
const NOT_DISTRIBUTED: [&str; 2] =
    ["application/vnd.oci.image.layer.nondistributable.", "application/vnd.docker.image.rootfs.foreign."];

/// The longest media type, in bytes: RFC 6838 allows 127 and 127.
const MAX_MEDIA_TYPE: usize = 255;

/// A blob or a manifest that a manifest references.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) digest: Digest,
    /// The length in bytes that the manifest says it has.
    pub(crate) size: Option<u64>,
    /// Whether it may be absent: a layer that registries need not have.
    pub(crate) optional: bool,
}

/// What a manifest says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Document {
    pub(crate) artifact_type: Option<String>,
    pub(crate) subject: Option<Digest>,
    /// The blobs that it references, each once.
    pub(crate) blobs: Vec<Reference>,
    /// The manifests that it references, each once.
    pub(crate) manifests: Vec<Reference>,
    /// What an index lists under media types that are not those of manifests known here, each once: manifests or blobs.
    /// Build caches are indexes of layers.
    pub(crate) others: Vec<Reference>,
}

/// The fields of manifests and indexes that matter here. All others are left as they are: the document is stored byte
/// for byte.
#[derive(Default)]
struct Manifest {
    schema_version: Option<u64>,
    media_type: Option<String>,
    artifact_type: Option<String>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
    manifests: Option<Vec<Descriptor>>,
    subject: Option<Descriptor>,
    /// Those of the first schema of Docker's manifests.
    has_old_layers: bool,
}

impl<'de> Fields<'de> for Manifest {
    const KEYS: &'static [&'static str] = &[
        "schemaVersion",
        "mediaType",
        "artifactType",
        "config",
        "layers",
        "manifests",
        "subject",
        "annotations",
        "fsLayers",
    ];

    fn take<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "schemaVersion" => self.schema_version = value.length("schemaVersion")?,
            "mediaType" => self.media_type = value.text()?,
            "artifactType" => self.artifact_type = value.text()?,
            "config" => self.config = value.object()?,
            "layers" => self.layers = value.list()?,
            "manifests" => self.manifests = value.list()?,
            "subject" => self.subject = value.object()?,
            "annotations" => drop(value.annotations()?),
            "fsLayers" => self.has_old_layers = value.present()?,
            _ => value.skip()?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Descriptor {
    media_type: Option<String>,
    digest: Option<Digest>,
    size: Option<u64>,
}

impl<'de> Fields<'de> for Descriptor {
    const KEYS: &'static [&'static str] =
        &["mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType"];

    fn take<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        match key {
            "mediaType" => self.media_type = value.text()?,
            "digest" => self.digest = Some(value.digest()?),
            "size" => self.size = value.length("size")?,
            "annotations" => drop(value.annotations()?),
            "platform" => {
                value.object::<Platform>()?;
            }
            _ => value.skip()?,
        }
        Ok(())
    }
}

impl Descriptor {
    fn reference(&self) -> Result<Reference> {
        let digest = self.digest.ok_or_else(|| invalid(ManifestProblem::Field { field: "digest" }))?;
        Ok(Reference { digest, size: self.size, optional: false })
    }
}

/// What clients choose a manifest of an index by.
#[derive(Default)]
struct Platform;

impl<'de> Fields<'de> for Platform {
    const KEYS: &'static [&'static str] = &["architecture", "os", "os.version", "os.features", "variant", "features"];

    fn take<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, A>) -> Result<(), A::Error> {
        value.skip()
    }
}

fn invalid(problem: ManifestProblem) -> Error {
    Error::InvalidManifest { problem }
}

/// Checks that a media type is one as to its form.
pub(crate) fn check_media_type(media_type: &str) -> Result<()> {
    let is_valid = media_type.len() <= MAX_MEDIA_TYPE
        && media_type.split_once('/').is_some_and(|(kind, rest)| !kind.is_empty() && !rest.is_empty())
        && media_type.bytes().all(|byte| byte.is_ascii_graphic());
    if is_valid {
        return Ok(());
    }
    let media_type = media_type.chars().take(MAX_MEDIA_TYPE).collect();
    Err(invalid(ManifestProblem::UnknownMediaType { media_type }))
}

impl Document {
    /// Parses a manifest of one of the known media types.
    pub(crate) fn parse(media_type: &str, content: &[u8]) -> Result<Self> {
        let is_index = match media_type {
            OCI_MANIFEST | DOCKER_MANIFEST => false,
            OCI_INDEX | DOCKER_LIST => true,
            _ => return Err(invalid(ManifestProblem::UnknownMediaType { media_type: media_type.to_owned() })),
        };
        let fields: Manifest = json::parse(content)?;
        let field = |field| invalid(ManifestProblem::Field { field });
        if fields.schema_version != Some(2) {
            return Err(field("schemaVersion"));
        }
        if let Some(expected) = fields.media_type.filter(|said| said != media_type) {
            let expected = expected.chars().take(MAX_MEDIA_TYPE).collect();
            return Err(invalid(ManifestProblem::MediaType { expected, found: media_type.to_owned() }));
        }
        // What could be read as the one and as the other is neither (CVE-2021-41190).
        if is_index && (fields.config.is_some() || fields.layers.is_some()) {
            return Err(field(if fields.config.is_some() { "config" } else { "layers" }));
        }
        if !is_index && fields.manifests.is_some() {
            return Err(field("manifests"));
        }
        if fields.has_old_layers {
            return Err(field("fsLayers"));
        }
        let mut document = Self {
            artifact_type: fields.artifact_type.filter(|kind| !kind.is_empty()),
            subject: fields.subject.map(|subject| Ok(subject.reference()?.digest)).transpose()?,
            ..Self::default()
        };
        if is_index {
            for listed in fields.manifests.iter().flatten() {
                let kind = listed.media_type.as_deref().unwrap_or(OCI_MANIFEST);
                let is_manifest = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].contains(&kind);
                let list = if is_manifest { &mut document.manifests } else { &mut document.others };
                list.push(listed.reference()?);
            }
        } else {
            let config = fields.config.ok_or_else(|| field("config"))?;
            document.blobs.push(config.reference()?);
            for layer in fields.layers.iter().flatten() {
                let kind = layer.media_type.as_deref().unwrap_or_default();
                let optional = NOT_DISTRIBUTED.iter().any(|beginning| kind.starts_with(beginning));
                document.blobs.push(Reference { optional, ..layer.reference()? });
            }
            document.artifact_type = document.artifact_type.or(config.media_type.filter(|kind| !kind.is_empty()));
        }
        if let Some(kind) = &document.artifact_type {
            check_media_type(kind).map_err(|_| field("artifactType"))?;
        }
        document.without_repetitions()
    }

    /// A document whose references are given.
    pub(crate) fn of_references(blobs: &[Digest], manifests: &[Digest]) -> Result<Self> {
        let references = |digests: &[Digest]| {
            digests.iter().map(|digest| Reference { digest: *digest, size: None, optional: false }).collect()
        };
        let document = Self { blobs: references(blobs), manifests: references(manifests), ..Self::default() };
        document.without_repetitions()
    }

    /// Each reference once, with the one size that is said of it: a blob that is referenced as one that must be there
    /// must be there.
    fn without_repetitions(mut self) -> Result<Self> {
        for list in [&mut self.blobs, &mut self.manifests, &mut self.others] {
            list.sort_unstable_by_key(|reference| (reference.digest, reference.optional));
            let mut differing = None;
            list.dedup_by(|again, first| {
                let is_same = again.digest == first.digest;
                if is_same
                    && let (Some(expected), Some(found)) = (first.size, again.size)
                    && expected != found
                {
                    differing = Some(ManifestProblem::Size { digest: first.digest, expected, found });
                }
                if is_same {
                    first.size = first.size.or(again.size);
                }
                is_same
            });
            if let Some(problem) = differing {
                return Err(invalid(problem));
            }
        }
        Ok(self)
    }
}

/// The annotations of a manifest; none where it has none, or is no document as [`json`] has them.
pub(crate) fn annotations(content: &[u8]) -> BTreeMap<String, String> {
    #[derive(Default)]
    struct Annotated(BTreeMap<String, String>);

    impl<'de> Fields<'de> for Annotated {
        const KEYS: &'static [&'static str] = &["annotations"];

        fn take<A: MapAccess<'de>>(&mut self, _: &str, value: Value<'_, A>) -> Result<(), A::Error> {
            self.0 = value.annotations()?;
            Ok(())
        }
    }

    json::parse(content).map(|annotated: Annotated| annotated.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Algorithm;
    use crate::oci::json::MAX_REFERENCES;

    fn digest(n: u8) -> Digest {
        Digest::of(Algorithm::Sha256, &[n])
    }

    fn sized(n: u8) -> Reference {
        Reference { digest: digest(n), size: Some(1), optional: false }
    }

    fn descriptor(kind: &str, n: u8) -> String {
        format!(r#"{{"mediaType":"{kind}","digest":"{}","size":1}}"#, digest(n))
    }

    fn problem(media_type: &str, content: &str) -> ManifestProblem {
        match Document::parse(media_type, content.as_bytes()) {
            Err(Error::InvalidManifest { problem }) => problem,
            other => panic!("{content}: {other:?}"),
        }
    }

    #[test]
    fn an_image_references_its_config_and_its_layers_each_once() {
        let content = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{},{}],"subject":{},"annotations":{{"a":"b"}},"x":[1]}}"#,
            descriptor("a/config", 1),
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 2),
            descriptor("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", 3),
            descriptor("application/vnd.oci.image.layer.v1.tar+gzip", 2),
            descriptor(OCI_MANIFEST, 4),
        );
        for media_type in [OCI_MANIFEST, DOCKER_MANIFEST] {
            let document = Document::parse(media_type, content.as_bytes()).unwrap();
            let mut blobs: Vec<_> = document.blobs.iter().map(|blob| (blob.digest, blob.optional)).collect();
            blobs.sort();
            let mut expected = vec![(digest(1), false), (digest(2), false), (digest(3), true)];
            expected.sort();
            assert_eq!(blobs, expected);
            assert_eq!(document.subject, Some(digest(4)));
            assert_eq!(document.artifact_type.as_deref(), Some("a/config"));
            assert!(document.manifests.is_empty());
        }
        assert_eq!(annotations(content.as_bytes())["a"], "b");
    }

    #[test]
    fn a_blob_that_is_referenced_twice_must_be_there_if_one_of_the_two_says_so() {
        let content = format!(
            r#"{{"schemaVersion":2,"config":{},"layers":[{},{}]}}"#,
            descriptor("a/b", 1),
            descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 2),
            descriptor("application/vnd.docker.image.rootfs.diff.tar.gzip", 2),
        );
        let document = Document::parse(DOCKER_MANIFEST, content.as_bytes()).unwrap();
        assert!(document.blobs.iter().all(|blob| !blob.optional));
    }

    #[test]
    fn an_index_references_manifests() {
        let content =
            format!(r#"{{"schemaVersion":2,"artifactType":"x/y","manifests":[{}]}}"#, descriptor(OCI_MANIFEST, 1));
        let document = Document::parse(OCI_INDEX, content.as_bytes()).unwrap();
        assert_eq!((document.manifests, document.blobs), (vec![sized(1)], vec![]));
        assert_eq!(document.artifact_type.as_deref(), Some("x/y"));
        assert!(Document::parse(DOCKER_LIST, br#"{"schemaVersion":2,"manifests":[]}"#).unwrap().manifests.is_empty());
        let cache = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor("application/vnd.x.layer", 1));
        let cache = Document::parse(OCI_INDEX, cache.as_bytes()).unwrap();
        assert_eq!((cache.manifests, cache.others), (vec![], vec![sized(1)]));
    }

    #[test]
    fn what_is_no_manifest_is_refused_with_the_reason() {
        let config = descriptor("a/b", 1);
        assert!(matches!(problem(OCI_MANIFEST, "{"), ManifestProblem::Syntax { line: 1, .. }));
        assert!(matches!(problem(OCI_MANIFEST, "[]"), ManifestProblem::Syntax { .. }));
        assert!(matches!(problem(OCI_MANIFEST, &"[".repeat(100_000)), ManifestProblem::Syntax { .. }));
        assert!(matches!(problem("text/plain", "{}"), ManifestProblem::UnknownMediaType { .. }));
        let field = |content: &str, expected: &str| {
            assert!(matches!(problem(OCI_MANIFEST, content), ManifestProblem::Field { field } if field == expected));
        };
        field("{}", "schemaVersion");
        field(r#"{"schemaVersion":1}"#, "schemaVersion");
        field(r#"{"schemaVersion":2}"#, "config");
        field(&format!(r#"{{"schemaVersion":2,"config":{config},"manifests":[]}}"#), "manifests");
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"manifests":[]}}"#);
        assert!(matches!(problem(OCI_INDEX, &both), ManifestProblem::Field { field: "config" }));
        let other = format!(r#"{{"schemaVersion":2,"mediaType":"{DOCKER_MANIFEST}","config":{config}}}"#);
        assert!(matches!(problem(OCI_MANIFEST, &other), ManifestProblem::MediaType { .. }));
        let long = format!(r#"{{"schemaVersion":2,"mediaType":"{}"}}"#, "\u{7f}".repeat(9999));
        assert!(
            matches!(problem(OCI_MANIFEST, &long), ManifestProblem::MediaType { expected, .. } if expected.len() == 255)
        );
        let list = |len: usize| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, vec!["{}"; len].join(","));
        assert!(!matches!(problem(OCI_MANIFEST, &list(MAX_REFERENCES)), ManifestProblem::TooMany));
        assert!(matches!(problem(OCI_MANIFEST, &list(MAX_REFERENCES + 1)), ManifestProblem::TooMany));
        let md5 = r#"{"schemaVersion":2,"config":{"digest":"md5:00"}}"#;
        assert!(matches!(problem(OCI_MANIFEST, md5), ManifestProblem::Digest { .. }));
    }
}
