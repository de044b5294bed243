//! Import and export of what others have made: documents, layouts and trees that are meant to do harm, or that change
//! meanwhile. Nothing outside of the folder is read or written, and what can't be stored is told.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    unreachable_pub,
    reason = "a test"
)]

mod command;
#[path = "transfer/export.rs"]
mod export;
#[path = "transfer/import.rs"]
mod import;
#[path = "transfer/lab.rs"]
mod lab;
#[path = "transfer/layouts.rs"]
mod layouts;
#[path = "transfer/names.rs"]
mod names;
#[path = "transfer/sizes.rs"]
mod sizes;
