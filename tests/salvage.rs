//! A damaged log: the store can be read up to the damage, and be salvaged, and is never told to have lost less than it
//! has.

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

mod common;
#[path = "salvage/crashes.rs"]
mod crashes;
#[path = "salvage/kinds.rs"]
mod kinds;
#[path = "salvage/lab.rs"]
mod lab;
#[path = "salvage/losses.rs"]
mod losses;
#[path = "salvage/reading.rs"]
mod reading;
