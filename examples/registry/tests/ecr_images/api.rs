//! A client of the ECR API without a signature.

use serde_json::{Value, json};
use strongroom::registry::{RepositoryName, RepositorySettings};
use strongroom::{Digest, Store};
use strongroom_registry::http::{Creation, Indexes};

use crate::common::registry::{IMAGE, INDEX};
use crate::server::{Server, image};

/// The account of a registry without credentials.
pub const ACCOUNT: &str = "000000000000";

pub const REPOSITORY: &str = "team/app";

/// A registry with an empty repository.
pub fn registry() -> Server {
    registry_with(Indexes::Whole, RepositorySettings::new())
}

pub fn registry_with(indexes: Indexes, settings: RepositorySettings) -> Server {
    Server::with(Creation::OnPush, indexes, |store: &Store| {
        let name: RepositoryName = REPOSITORY.parse().unwrap();
        drop(store.create_repository(&name, settings).unwrap());
    })
}

impl Server {
    /// Calls an operation of ECR on the repository; what it answers, with its status.
    pub fn ecr(&self, operation: &str, input: Value) -> (u16, Value) {
        let mut input = input;
        input.as_object_mut().unwrap().entry("repositoryName").or_insert(json!(REPOSITORY));
        self.ecr_raw(operation, input.to_string().as_bytes())
    }

    pub fn ecr_raw(&self, operation: &str, input: &[u8]) -> (u16, Value) {
        self.call(&format!("AmazonEC2ContainerRegistry_V20150921.{operation}"), input)
    }

    /// Calls an operation of ECR Public.
    pub fn ecr_public(&self, operation: &str, input: Value) -> (u16, Value) {
        self.call(&format!("SpencerFrontendService.{operation}"), input.to_string().as_bytes())
    }

    fn call(&self, target: &str, input: &[u8]) -> (u16, Value) {
        let headers = [("X-Amz-Target", target), ("Content-Type", "application/x-amz-json-1.1")];
        let answer = self.send("POST", "/", &headers, input);
        assert_eq!(answer.header("content-type"), Some("application/x-amz-json-1.1"), "{answer:?}");
        (answer.status, answer.json())
    }

    /// The output of an operation that does not fail.
    pub fn ok(&self, operation: &str, input: Value) -> Value {
        let (status, output) = self.ecr(operation, input);
        assert_eq!(status, 200, "{operation}: {output}");
        output
    }

    /// The error of an operation that fails: its type and its message.
    pub fn fails(&self, operation: &str, input: Value) -> (String, String) {
        let (status, error) = self.ecr(operation, input);
        assert_eq!(status, 400, "{operation}: {error}");
        let text = |member: &str| error[member].as_str().unwrap().to_owned();
        (text("__type"), text("message"))
    }

    /// The type of the error of an operation that fails.
    pub fn error_of(&self, operation: &str, input: Value) -> String {
        self.fails(operation, input).0
    }

    /// All pages of a list, by the member that has its items.
    pub fn all(&self, operation: &str, member: &str, input: &Value) -> Vec<Vec<Value>> {
        let (mut pages, mut input) = (Vec::new(), input.clone());
        loop {
            let output = self.ok(operation, input.clone());
            pages.push(output[member].as_array().unwrap().clone());
            match output.get("nextToken") {
                Some(token) => input["nextToken"] = token.clone(),
                None => return pages,
            }
        }
    }

    pub fn archive(&self, id: &Value) {
        let archived = self.ok("UpdateImageStorageClass", json!({ "imageId": id, "targetStorageClass": "ARCHIVE" }));
        assert_eq!(archived["imageStatus"], "ARCHIVED");
    }

    pub fn push_image_of(&self, tag: &str) -> Digest {
        self.push_image(REPOSITORY, tag, tag)
    }

    pub fn push_index(&self, reference: &str, manifests: &[Digest]) -> Digest {
        let answer = self.push_manifest(REPOSITORY, reference, &index(self, manifests));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.header("docker-content-digest").unwrap().parse().unwrap()
    }

    pub fn tag(&self, digest: &Digest, tag: &str) {
        let manifest = self.get(&format!("/v2/{REPOSITORY}/manifests/{digest}"));
        let headers = [("Content-Type", manifest.header("content-type").unwrap())];
        let path = format!("/v2/{REPOSITORY}/manifests/{tag}");
        assert_eq!(self.send("PUT", &path, &headers, &manifest.body).status, 201);
    }

    /// The status of a manifest for those who pull it.
    pub fn pull(&self, reference: &str) -> u16 {
        self.get(&format!("/v2/{REPOSITORY}/manifests/{reference}")).status
    }
}

/// An index of manifests that are there.
pub fn index(server: &Server, manifests: &[Digest]) -> Value {
    let descriptor = |digest: &Digest| {
        let answer = server.get(&format!("/v2/{REPOSITORY}/manifests/{digest}"));
        json!({
            "mediaType": answer.header("content-type").unwrap(), "digest": digest.to_string(), "size": answer.body.len()
        })
    };
    let manifests: Vec<_> = manifests.iter().map(descriptor).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// The document of an image whose config is pushed.
pub fn manifest(server: &Server, config: &str) -> String {
    let digest = server.push_blob(REPOSITORY, config.as_bytes());
    image(digest, config.len()).to_string()
}

pub fn image_id(digest: &Digest, tag: &str) -> Value {
    json!({ "imageDigest": digest.to_string(), "imageTag": tag })
}

pub fn by_tag(tag: &str) -> Value {
    json!({ "imageTag": tag })
}

pub fn by_digest(digest: &Digest) -> Value {
    json!({ "imageDigest": digest.to_string() })
}

pub const OF_IMAGE: &str = IMAGE;
