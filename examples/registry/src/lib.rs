//! An OCI registry over one store: the whole of the distribution specification 1.1, as a program and its tests have it.
//!
//! All rules are the crate's: what is here turns requests into calls, and results into answers. [`http`] is the door;
//! `docs/embedding.md` explains the calls. [`config`] is the command line.

#![allow(missing_docs, unreachable_pub, reason = "a program has no outside: what is public is so for its tests")]

pub mod access;
pub mod auth;
pub mod config;
pub mod ecr;
pub mod http;
pub mod lifecycle;
pub mod log;
pub mod oci;
pub mod server;
