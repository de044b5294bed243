//! What a repository has and an image layout has no place for, in a file beside the layout's index. Whoever reads the
//! layout as such passes over it.
//!
//! ```text
//! strongroom.jsonl   {"document": name, "text": content}     a document of the repository; the content that
//!                    {"document": name, "hex": content}      is no UTF-8 in hex
//!                    {"archived": digest}                    a manifest that is archived, with what goes with it
//! ```
//!
//! A line is bounded, and read for itself: one that says nothing of that kind is reported, and the others are imported.

use std::io::{BufRead as _, BufReader, Read as _};

use serde::Deserialize;
use serde_json::json;

use crate::digest::{Digest, decode_hex, encode_hex};
use crate::error::Error;
use crate::oci::ExpectDocument;
use crate::registry::{Document, Repository, StorageClass};
use crate::transfer::document::parse;
use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;
use crate::transfer::registries::{Reason, RegistryImport};
use crate::transfer::tree::Tree;

/// The file.
pub(crate) const EXTRAS: &str = "strongroom.jsonl";

/// The longest line in bytes: a document of which each byte is written as `\u0000`.
const LINE_MAX: u64 = (6 << 20) + 4096;

#[derive(Deserialize)]
struct Line {
    document: Option<String>,
    text: Option<String>,
    hex: Option<String>,
    archived: Option<String>,
}

/// The line of a document.
pub(crate) fn document(document: &Document) -> String {
    let (name, content) = (&document.name, &document.content);
    let line = match str::from_utf8(content) {
        Ok(text) => json!({ "document": name, "text": text }),
        Err(_) => json!({ "document": name, "hex": encode_hex(content) }),
    };
    format!("{line}\n")
}

/// The line of a manifest that is archived.
pub(crate) fn archived(digest: &Digest) -> String {
    format!("{}\n", json!({ "archived": digest.to_string() }))
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let mut bytes = vec![0; text.len() / 2];
    decode_hex(&text.to_ascii_lowercase(), &mut bytes)?;
    Some(bytes)
}

/// Imports what the file says, if there is one. What the repository has already stays.
pub(crate) fn import(
    tree: &mut Tree,
    repository: &Repository,
    report: &mut RegistryImport,
) -> Result<(), TransferError> {
    let path = TreePath::new(EXTRAS)?;
    let whole = tree.whole(&path);
    let Some(opened) = tree.open_file(&path)? else { return Ok(()) };
    let mut file = BufReader::new(opened.file);
    for number in 1_u64.. {
        let mut line = Vec::new();
        file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line).map_err(at(&whole))?;
        if line.is_empty() {
            break;
        }
        let is_whole = (line.len() as u64) < LINE_MAX || line.ends_with(b"\n");
        let done = if is_whole { import_line(&line, repository, report)? } else { None };
        if done.is_none() {
            let reason = Reason::Unreadable { problem: "it says nothing that a line of this file may say".into() };
            report.skipped.add(repository.name().as_str(), format!("{EXTRAS}:{number}"), reason);
        }
        if !is_whole {
            break; // what follows are no lines
        }
    }
    Ok(())
}

/// Imports what a line says; `None` where it says nothing.
fn import_line(line: &[u8], repository: &Repository, report: &mut RegistryImport) -> Result<Option<()>, TransferError> {
    let Some(Line { document, text, hex, archived }) = parse::<Line>(line) else { return Ok(None) };
    if let Some(digest) = archived {
        let Ok(digest) = digest.parse() else { return Ok(None) };
        return match repository.set_storage_class(&digest, StorageClass::Archive) {
            // It was skipped, or an index that came from elsewhere holds it.
            Ok(_) | Err(Error::ManifestNotFound { .. } | Error::ManifestInUse { .. }) => Ok(Some(())),
            Err(error) => Err(error.into()),
        };
    }
    let Some(document) = document else { return Ok(None) };
    let content = text.map(String::into_bytes).or_else(|| from_hex(&hex?));
    let Some(content) = content else { return Ok(None) };
    match repository.set_document(&document, content, ExpectDocument::Absent) {
        Ok(_) => report.documents.new += 1,
        Err(Error::DocumentChanged { .. }) => report.documents.existing += 1,
        Err(Error::InvalidDocumentName { .. } | Error::TooLarge { .. }) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(()))
}
