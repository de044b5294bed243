//! The log: facts and small content, in one stream, in the order of all commits.
//!
//! A commit is one [`record`]; a group of commits is written with one call and made durable with one fdatasync. Log
//! [files](file) have a fixed capacity and are written front to back, once. A full one is sealed: it takes no more
//! records, and goes on as the segment of the frames that rode in it. [`replay`] reads one back after a restart and
//! tells what a power cut tore from what is damaged.

pub(crate) mod commit;
pub(crate) mod file;
mod frames;
pub(crate) mod op;
pub(crate) mod record;
pub(crate) mod replay;

pub(crate) use file::{ActiveLog, LogHeader};
pub(crate) use frames::frames;
pub(crate) use op::{Named, Op};
pub(crate) use record::{Body, Encoded, Position, Times};
