//! The API of Amazon ECR and of Amazon ECR Public: AWS JSON 1.1, `POST /` with the operation in `X-Amz-Target`.
//!
//! ```text
//! request ─► signature (auth) ─► table (model) ─► may the caller? (access) ─► operation ─► store
//! ```
//! [`operations`] lists what is built, with what each acts on: so none is called by who may not, and none sees an input
//! that the table does not allow. The others answer `UnsupportedCommandException`.

pub mod account;
pub mod call;
pub mod documents;
pub mod error;
pub mod image_deletion;
pub mod image_details;
pub mod image_ids;
pub mod image_lists;
pub mod image_referrers;
pub mod image_status;
pub mod images;
pub mod layers;
pub mod lifecycle;
pub mod login;
pub mod model;
pub mod page;
pub mod policies;
pub mod public;
pub mod registry_documents;
pub mod repositories;
pub mod tags;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use serde_json::Value;
use strongroom::Store;

use crate::access::{Asker, Reads};
use crate::auth::{Identity, sts};
use crate::http::body::Kind;
use crate::http::memory::{Held, keeping};
use crate::http::peer::Peer;
use crate::http::{Caller, Registry};
use call::{Answer, Call, Input, Origin};
use error::{ApiError, JSON};
use model::{ECR, ECR_PUBLIC, Model};

/// The longest body, in bytes; of those two, as much as their one long member may take.
const MAX_BODY: usize = 1 << 20;
const MAX_PART_BODY: usize = 28 << 20;
const MAX_IMAGE_BODY: usize = 16 << 20;

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Private,
    Public,
}

impl Service {
    pub fn model(self) -> &'static Model {
        match self {
            Self::Private => &ECR,
            Self::Public => &ECR_PUBLIC,
        }
    }
}

/// What an operation acts on: what its caller must have rights on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The registry as a whole: `*`.
    Registry,
    /// Who asks: what their own account allows.
    Caller,
    /// The repository that `repositoryName` names.
    Repository,
    /// The repositories that `repositoryNames` names; the registry, where there are none.
    Repositories,
    /// The repository that `resourceArn` names.
    Resource,
}

/// An operation that is built.
pub struct Built {
    pub service: Service,
    pub name: &'static str,
    pub target: Target,
    /// Whether it only reads: then it need not wait for those that change something.
    pub reads: Reads,
    pub run: fn(&Call<'_>) -> Answer,
}

impl Service {
    /// An operation of the service that only reads.
    const fn reads(self, name: &'static str, target: Target, run: fn(&Call<'_>) -> Answer) -> Built {
        Built { service: self, name, target, reads: Reads::Yes, run }
    }

    /// One that may change something.
    const fn writes(self, name: &'static str, target: Target, run: fn(&Call<'_>) -> Answer) -> Built {
        Built { service: self, name, target, reads: Reads::No, run }
    }
}

/// All that is built.
pub fn operations() -> impl Iterator<Item = &'static Built> {
    const ALL: [&[Built]; 14] = [
        account::OPERATIONS,
        image_deletion::OPERATIONS,
        image_details::OPERATIONS,
        image_lists::OPERATIONS,
        image_referrers::OPERATIONS,
        image_status::OPERATIONS,
        images::OPERATIONS,
        layers::OPERATIONS,
        lifecycle::OPERATIONS,
        login::OPERATIONS,
        policies::OPERATIONS,
        public::OPERATIONS,
        repositories::OPERATIONS,
        tags::OPERATIONS,
    ];
    ALL.into_iter().flatten()
}

/// Answers `POST /`.
pub async fn answer(
    State(registry): State<Arc<Registry>>,
    Extension(peer): Extension<Arc<Peer>>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let caller = Caller::new(peer, &parts, Identity::Anonymous);
    if sts::is_query(&parts) {
        return match registry.whole(body, Kind::Manifest, MAX_BODY, &caller).await {
            Ok((content, _held)) => {
                let (asked, answer) = (Instant::now(), sts::answer(&registry.auth, &parts, &content));
                if answer.status().is_client_error() {
                    registry.refusal(asked).await;
                }
                answer
            }
            Err(failure) => failure.into_response(),
        };
    }
    match called(&registry, &caller, parts, body).await {
        Ok((output, held)) => ([(CONTENT_TYPE, JSON)], keeping(Body::from(output.to_string()), held)).into_response(),
        Err(error) => error.into_response(),
    }
}

/// The output of an operation, with the memory that it takes if it is long.
async fn called(
    registry: &Arc<Registry>,
    caller: &Caller,
    parts: Parts,
    body: Body,
) -> Result<(Value, Option<Held>), ApiError> {
    let (service, name) = target(&parts)?;
    let operation = service.model().operation(name).ok_or_else(unknown_operation)?;
    let max = match operation.name {
        "UploadLayerPart" => MAX_PART_BODY,
        "PutImage" => MAX_IMAGE_BODY,
        _ => MAX_BODY,
    };
    let (content, held) = registry.whole(body, Kind::Manifest, max, caller).await?;
    let asked = Instant::now();
    let identity = match registry.auth.of_api(&parts, &content, service.model().signing) {
        Ok(identity) => identity,
        Err(error) => {
            registry.refusal(asked).await;
            return Err(error.into());
        }
    };
    let mut input = match serde_json::from_slice(&content) {
        Ok(Value::Object(input)) => input,
        _ => return Err(ApiError::new("SerializationException", "the body is no JSON object")),
    };
    drop(content);
    service.model().check(operation, &mut input).map_err(|invalid| ApiError::invalid(invalid, operation))?;
    let Some(built) = operations().find(|built| built.service == service && built.name == operation.name) else {
        let message = format!("{} is not built in this registry", operation.name);
        return Err(ApiError::new("UnsupportedCommandException", message));
    };
    let origin = Origin::of(&parts);
    let input = Input(input);
    let asker = Asker::new(identity, &parts, &caller.peer);
    let asker = asker.with_request_tags(request_tags(&input), input.texts("tagKeys"));
    let (own, by) = (Arc::clone(registry), caller.by(asker));
    let run = move |store: &Store| {
        let _held = held;
        let access = own.access(store, &by);
        let kept = Cell::default();
        let call = Call { registry: &own, store, caller: &by, access, built, origin: &origin, input, kept };
        call.check_rights()?;
        Ok::<_, ApiError>(((built.run)(&call)?, call.kept.take()))
    };
    // With the store goes the turn.
    let result = match built.reads {
        Reads::Yes => registry.reading(caller).await?.read(run).await,
        Reads::No => registry.writing(caller).await?.call(run).await,
    };
    if result.as_ref().is_err_and(ApiError::is_denied) {
        registry.refusal(asked).await;
    }
    result
}

fn unknown_operation() -> ApiError {
    ApiError::new("UnknownOperationException", "")
}

/// The service and the operation that a request names.
fn target(parts: &Parts) -> Result<(Service, &str), ApiError> {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
    let (prefix, name) = target.split_once('.').ok_or_else(unknown_operation)?;
    let services = [Service::Private, Service::Public];
    let service = services.into_iter().find(|service| service.model().target == prefix);
    Ok((service.ok_or_else(unknown_operation)?, name))
}

/// The resource tags that an input sets.
fn request_tags(input: &Input) -> impl Iterator<Item = (&str, &str)> {
    fn text<'t>(tag: &'t Value, member: &str) -> &'t str {
        tag.get(member).and_then(Value::as_str).unwrap_or_default()
    }
    input.list("tags").iter().map(|tag| (text(tag, "Key"), text(tag, "Value")))
}
