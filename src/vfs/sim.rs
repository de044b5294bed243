//! The simulated file system.

/// The simulated file system.
#[derive(Debug)]
pub struct SimVfs;

/// A fault to come.
#[derive(Debug)]
pub struct Fault;
