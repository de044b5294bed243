//! `strongroom`: a store from the command line.

#![allow(unreachable_pub, reason = "a program has no outside")]

mod backup;
mod check;
mod collect;
mod commands;
mod encryption;
mod failure;
mod files;
mod keys;
mod lifecycle;
mod output;
mod pins;
mod salvage;
mod transfer;
mod units;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::json;
use strongroom::{Error, ErrorKind};

use crate::commands::Arguments;
use crate::failure::Failure;

/// Exit codes: 1 for failures in general, 2 for a wrong command line, as clap has it, then one for each that a script
/// may want to tell.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const DAMAGED: u8 = 4;
const FULL: u8 = 5;
const LOCKED: u8 = 6;
const KEY: u8 = 7;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    match commands::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let code = code_of(&failure);
            // The answer that tells of damage, or of what was left out, is the one document.
            if json && !matches!(failure, Failure::Damaged(_) | Failure::Incomplete(_)) {
                let _ = writeln!(std::io::stdout(), "{}", json!({ "error": failure.to_string(), "exit": code }));
            }
            output::tell(&failure.to_string());
            ExitCode::from(code)
        }
    }
}

fn code_of(failure: &Failure) -> u8 {
    match failure {
        Failure::Damaged(_) | Failure::Incomplete(_) | Failure::CantOpen(_) => DAMAGED,
        Failure::Key(_) => KEY,
        Failure::Usage(_) => USAGE,
        Failure::Full(_) => FULL,
        Failure::File(_, error) if is_full(error) => FULL,
        Failure::Store(Error::Io { source, .. }) if is_full(source) => FULL,
        Failure::Store(error) => match error.kind() {
            ErrorKind::Damaged | ErrorKind::DigestMismatch => DAMAGED,
            ErrorKind::NotFound => NOT_FOUND,
            ErrorKind::Key => KEY,
            ErrorKind::Full => FULL,
            ErrorKind::Busy => LOCKED,
            _ => FAILED,
        },
        Failure::File(..) | Failure::Document(_) => FAILED,
    }
}

/// Whether a file could not become longer: the disk or the quota is full, or it may not (`ulimit -f`).
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
}
