//! Access control over HTTP: that who may do something can, that nobody else can, and that they learn nothing.

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

#[path = "ecr_access/bounds.rs"]
mod bounds;
#[path = "ecr_access/client.rs"]
mod client;
#[allow(unexpected_cfgs, reason = "the features that it asks for are the crate's")]
#[path = "../../../tests/common/mod.rs"]
mod common;
#[path = "ecr_access/credentials.rs"]
mod credentials;
#[path = "ecr_access/deputies.rs"]
mod deputies;
#[path = "ecr_access/differential.rs"]
mod differential;
#[path = "ecr_access/model.rs"]
mod model;
#[path = "registry_http/server.rs"]
mod server;
#[path = "ecr_access/silence.rs"]
mod silence;
