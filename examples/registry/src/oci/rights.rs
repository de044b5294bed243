//! The rights that requests of the distribution API take, in the terms of Amazon ECR's policies.

use axum::http::Method;
use strongroom::registry::RepositoryName;

use super::route::Route;
use crate::access::Reads;

/// What a request does to which repository: who asks must have the right to one of the actions.
pub struct Need<'a> {
    pub repository: &'a RepositoryName,
    pub actions: &'static [&'static str],
    pub reads: Reads,
}

/// What a request takes; nothing, where it is about no repository, or is refused anyhow.
///
/// | request | action |
/// |---|---|
/// | `GET`, `HEAD` of a manifest, referrers | `BatchGetImage` |
/// | `GET` of a blob | `GetDownloadUrlForLayer` |
/// | `HEAD` of a blob | that, or `BatchCheckLayerAvailability` |
/// | `POST`, and then `PATCH` and `GET`, `PUT`, `DELETE` of an upload | `InitiateLayerUpload`, `UploadLayerPart`, `CompleteLayerUpload` |
/// | `PUT` of a manifest | `PutImage` |
/// | `DELETE` of a manifest, a tag or a blob | `BatchDeleteImage` |
/// | tags | `ListImages` |
pub fn need<'a>(route: &'a Route, method: &Method) -> Option<Need<'a>> {
    let is_read = matches!(*method, Method::GET | Method::HEAD);
    let (repository, actions): (_, &[&str]) = match route {
        Route::Version | Route::Catalog => return None,
        Route::Tags(name) => (name, &["ListImages"]),
        Route::Referrers(name, _) => (name, &["BatchGetImage"]),
        Route::Manifest(name, _) if is_read => (name, &["BatchGetImage"]),
        Route::Manifest(name, _) if *method == Method::PUT => (name, &["PutImage"]),
        Route::Manifest(name, _) => (name, &["BatchDeleteImage"]),
        Route::Blob(name, _) if *method == Method::GET => (name, &["GetDownloadUrlForLayer"]),
        Route::Blob(name, _) if is_read => (name, &["GetDownloadUrlForLayer", "BatchCheckLayerAvailability"]),
        Route::Blob(name, _) => (name, &["BatchDeleteImage"]),
        Route::Uploads(name) => (name, &["InitiateLayerUpload"]),
        Route::Upload(name, _) if *method == Method::PUT => (name, &["CompleteLayerUpload"]),
        Route::Upload(name, _) => (name, &["UploadLayerPart"]),
    };
    let is_of_push = matches!(route, Route::Uploads(_) | Route::Upload(..));
    let reads = if is_read && !is_of_push { Reads::Yes } else { Reads::No };
    Some(Need { repository, actions, reads })
}
