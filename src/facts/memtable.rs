//! Facts that no run holds yet.
