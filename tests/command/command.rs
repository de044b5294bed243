//! The command line, as a test runs it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const STRONGROOM: &str = env!("CARGO_BIN_EXE_strongroom");

/// How many seconds a command of a test may take: one that takes more hangs.
const PATIENCE: &str = "60";

/// A command on a store.
pub fn command(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(STRONGROOM);
    command.arg("--data").arg(data).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A command that has a limit of the shell's: `-n 40` for 40 descriptors.
pub fn limited(limit: &str, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit {limit} && exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(STRONGROOM).arg("--data").arg(data).args(arguments);
    command
}

/// Runs a command to its end.
pub fn strongroom(data: &Path, arguments: &[&str]) -> Output {
    command(data, arguments).output().unwrap()
}

/// Runs a command that has to succeed, and returns what it printed.
pub fn ok(data: &Path, arguments: &[&str]) -> String {
    let output = strongroom(data, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn code(data: &Path, arguments: &[&str]) -> i32 {
    strongroom(data, arguments).status.code().unwrap()
}

/// Fails with this exit code and says these words.
pub fn refused(data: &Path, arguments: &[&str], code: i32, words: &[&str]) {
    let output = strongroom(data, arguments);
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {told}");
    words.iter().for_each(|word| assert!(told.contains(word), "{arguments:?}: {told:?} has no {word:?}"));
}

/// The documents of a command that prints one a line.
pub fn rows(data: &Path, arguments: &[&str]) -> Vec<Value> {
    let printed = ok(data, &[&["--json"], arguments].concat());
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs a command that is not to hang.
pub fn ends(command: &Command) -> Output {
    let mut limited = Command::new("timeout");
    let output = limited.arg(PATIENCE).arg(command.get_program()).args(command.get_args()).output().unwrap();
    assert_ne!(output.status.code(), Some(124), "{command:?} hangs");
    output
}

/// Fails unless two folders are alike: names, content, modes, and what links point to.
pub fn assert_alike(one: &Path, other: &Path) {
    let diff = Command::new("diff").args(["-r", "--no-dereference"]).arg(one).arg(other).output().unwrap();
    assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
}
