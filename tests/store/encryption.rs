//! Encryption at rest: nothing leaks, nothing can be changed or moved unnoticed, keys can be changed at any time,
//! domains are apart, and no crash in any of that loses anything.
//!
//! Who attacks has the directory: reads it, and writes to it between two openings. What they may learn is how much
//! there is, how it grows, and which key domain a file belongs to; what they can bring about is an error.

mod crashes;
mod disk;
mod domains;
mod flips;
mod keys;
mod lab;
mod leaks;
mod locked;
mod locked_crashes;
mod locked_damage;
mod many_domains;
mod moved;
mod online;
mod reading;
mod secrets;
#[cfg(feature = "sled")]
mod view;
