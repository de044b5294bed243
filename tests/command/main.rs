//! The command line: what it does for its user, with what others have made, and when it is killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "tests"
)]

#[path = "../common/mod.rs"]
mod common;

mod backup;
mod beside;
mod cli;
mod command;
mod kill;
mod lifecycle;
mod transfer;
