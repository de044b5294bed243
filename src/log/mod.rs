//! The log: facts and small content, in one stream, in the order of all commits.
//!
//! A commit is one [`record`]. The [committer](Committer) gives commits their order: requests [queue](queue), a
//! [group](group) of them is written with one call and made durable with one fdatasync. Log files have a [fixed
//! capacity](file) and are written front to back, once. A full one is sealed: it takes no more records, and serves as
//! the segment of the frames in it. [`replay`] reads one back after a restart and tells what a power cut tore from what
//! is damaged, [`survey`] finds what is behind damage; [`recovery`] restores the store's state from them.

mod committer;
pub(crate) mod file;
mod follow;
mod frames;
mod group;
mod queue;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod replay;
mod survey;

pub use committer::Durability;
pub(crate) use committer::{Committer, LogOptions};
pub(crate) use file::{ActiveLog, LogHeader, open_log};
pub(crate) use follow::{Reached, ReadOn, read_on};
pub(crate) use frames::frames;
pub(crate) use group::InLog;
pub(crate) use record::{Body, Encoded, Position};
pub(crate) use survey::{Piece, survey};
