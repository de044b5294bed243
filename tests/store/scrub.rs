//! Scrubbing and healing: what is damaged is found, told and flagged, and comes back when it is pushed again; what is
//! sound is left alone.

mod beside;
mod crashes;
mod healing;
mod lab;
mod resuming;
