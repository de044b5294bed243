//! The store as a program sees it, a module for each promise: `cargo test --test store crash::` has those of one.
//!
//! It is one program, since every program links the whole crate anew, and the tests of one share the processor.

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

mod adapters;
mod backups;
mod batches;
mod clients;
mod collection;
mod crash;
mod damage;
#[cfg(feature = "encryption")]
mod encryption;
mod faults;
mod files;
mod golden;
mod handles;
mod health;
mod input;
mod model;
mod named;
mod read_only;
mod registry;
mod registry_races;
mod salvage;
mod scrub;
mod shortage;
mod snapshots;
mod uploads;
