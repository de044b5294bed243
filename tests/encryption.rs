//! Encryption at rest: nothing leaks, nothing can be changed or moved unnoticed, keys can be changed at any time,
//! domains are apart, and no crash in any of that loses anything.
//!
//! Who attacks has the directory: reads it, and writes to it between two openings. What they may learn is how much
//! there is, how it grows, and which key domain a file belongs to; what they can bring about is an error.

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

#[path = "encryption/crashes.rs"]
mod crashes;
#[path = "encryption/disk.rs"]
mod disk;
#[path = "encryption/domains.rs"]
mod domains;
#[path = "encryption/flips.rs"]
mod flips;
#[path = "encryption/keys.rs"]
mod keys;
#[path = "encryption/lab.rs"]
mod lab;
#[path = "encryption/leaks.rs"]
mod leaks;
#[path = "encryption/moved.rs"]
mod moved;
#[path = "encryption/online.rs"]
mod online;
#[path = "encryption/secrets.rs"]
mod secrets;
