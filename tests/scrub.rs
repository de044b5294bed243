//! Scrubbing and healing: what is damaged is found, told and flagged, and comes back when it is pushed again; what is
//! sound is left alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

#[path = "scrub/beside.rs"]
mod beside;
mod common;
#[path = "scrub/crashes.rs"]
mod crashes;
#[path = "scrub/healing.rs"]
mod healing;
#[path = "scrub/lab.rs"]
mod lab;
#[path = "scrub/resuming.rs"]
mod resuming;
