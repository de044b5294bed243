//! The operations of the ECR API on layers and images, as bytes over HTTP: what they do, and each of their errors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    dead_code,
    unreachable_pub,
    reason = "a test"
)]

#[path = "ecr_images/api.rs"]
mod api;
#[allow(unexpected_cfgs, reason = "the features that it asks for are the crate's")]
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "ecr_images/deletion.rs"]
mod deletion;
#[path = "ecr_images/details.rs"]
mod details;
#[path = "ecr_images/layers.rs"]
mod layers;
#[path = "ecr_images/lists.rs"]
mod lists;
#[path = "ecr_images/public.rs"]
mod public;
#[path = "ecr_images/pulls.rs"]
mod pulls;
#[path = "ecr_images/pushes.rs"]
mod pushes;
#[path = "ecr_images/referrers.rs"]
mod referrers;
#[path = "ecr_images/repositories.rs"]
mod repositories;
#[path = "registry_http/server.rs"]
mod server;
#[path = "ecr_images/status.rs"]
mod status;
