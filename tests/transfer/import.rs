//! Imports, as other tests need them.

use serde_json::Value;

use crate::command::{command, ends};
use crate::lab::Lab;

/// The report of an import that ends.
pub fn import(lab: &Lab, more: &[&str]) -> Value {
    let output = ends(&command(&lab.data, &[&["--json", "import", &lab.text("from")], more].concat()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}
