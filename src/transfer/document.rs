//! The documents of a folder: what is in it, as import writes them and export reads them. They are JSON.
//!
//! ```text
//! document  {"strongroom": "folder", "entries": [row, …], "parts": [digest, …]}
//! part      {"strongroom": "folder-part", "entries": [row, …]}
//! row       {"path": path, "mode": 493, "type": "dir"}
//!           {"path": path, "mode": 420, "type": "file", "digest": digest, "bytes": 7}
//!           {"path": path, "mode": 511, "type": "link", "target": path}
//! path      a text, or an array of bytes where it is no UTF-8
//! ```
//!
//! A part has at most [`ENTRIES`] rows, or [`TEXT`] bytes of them, and so has the document itself. The rows of a
//! document's parts come before its own. A directory's row comes before those of what is in it.
//!
//! The document is pinned under the import's name, and each of its parts under a name of its own: see
//! [`pins`](crate::transfer::pins). Export finds the parts by the digests in the document alone.

use std::collections::BTreeSet;
use std::fmt;

use bytes::Bytes;
use rustix::fs::Mode;
use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use crate::blobs::PutNamed;
use crate::digest::{Algorithm, Digest};
use crate::error::Error;
use crate::store::Store;
use crate::transfer::error::TransferError;
use crate::transfer::path::{RawPath, TreePath};
use crate::transfer::pins::{HELD_MAX, NewPin};
use crate::transfer::plan::{Entry, Plan};

/// A document lists so many entries, and has so many bytes of them, at most; further ones go to parts.
const ENTRIES: usize = 50_000;
const TEXT: usize = 16 << 20;
const _: () = assert!(ENTRIES <= HELD_MAX, "the pin of a document holds all of its files");

/// The longest document that is read.
pub(crate) const DOCUMENT_MAX: u64 = 32 << 20;

const WHOLE: &str = "folder";
const PART: &str = "folder-part";

/// One thing in a folder.
#[derive(Debug, Deserialize, Serialize)]
pub(crate) struct Row {
    pub(crate) path: RawPath,
    pub(crate) mode: u32,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<RawPath>,
}

impl Row {
    /// What all kinds have.
    pub(crate) fn new(kind: Kind, path: &TreePath, mode: Mode) -> Self {
        let (path, mode) = (RawPath(path.as_bytes().into()), mode.as_raw_mode());
        Self { path, mode, kind, digest: None, bytes: None, target: None }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Dir,
    File,
    Link,
}

#[derive(Debug, Deserialize)]
struct Document {
    strongroom: String,
    #[serde(deserialize_with = "rows")]
    entries: Vec<Row>,
    /// Documents of earlier versions have none: their parts were found by the names of pins.
    parts: Option<Vec<String>>,
}

/// Reads rows, no more than there may be: in 32 MiB there is space for 780,000, which take 275 MB of memory.
fn rows<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Row>, D::Error> {
    struct Reader;
    impl<'de> Visitor<'de> for Reader {
        type Value = Vec<Row>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {ENTRIES} rows")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut found: A) -> Result<Vec<Row>, A::Error> {
            let mut rows = Vec::new();
            while let Some(row) = found.next_element()? {
                if rows.len() == ENTRIES {
                    return Err(serde::de::Error::invalid_length(ENTRIES + 1, &self));
                }
                rows.push(row);
            }
            Ok(rows)
        }
    }
    from.deserialize_seq(Reader)
}

/// Reads a blob of bounded length.
pub(crate) fn read(store: &Store, digest: &Digest, max: u64) -> Result<Bytes, TransferError> {
    let blob = store.get(digest)?;
    if blob.len() > max {
        return Err(TransferError::NotAnImport { problem: "the pinned document has more bytes than one of an import" });
    }
    Ok(blob.bytes()?)
}

/// The document in a JSON object. An array is none, though serde takes one for a struct.
pub(crate) fn parse<T: DeserializeOwned>(json: &[u8]) -> Option<T> {
    json.trim_ascii_start().starts_with(b"{").then(|| serde_json::from_slice(json).ok()).flatten()
}

/// What the document of a pin says is in a folder.
pub(crate) fn plan(store: &Store, name: &str, document: &[u8]) -> Result<Plan, TransferError> {
    let mut plan = Plan::default();
    let document: Document = parse(document).filter(|found: &Document| found.strongroom == WHOLE).ok_or_else(bad)?;
    // As earlier versions split an import.
    let is_full = document.parts.is_none() && document.entries.len() == ENTRIES;
    if is_full && !matches!(store.named().stat(&format!("{name}#2")), Err(Error::NamedNotFound { .. })) {
        let problem =
            "it was imported in several parts by an earlier version of strongroom: export it with that version";
        return Err(TransferError::NotAnImport { problem });
    }
    let mut seen = BTreeSet::new();
    for digest in document.parts.iter().flatten() {
        let part: Option<Document> = parse(&read(store, &digest.parse()?, DOCUMENT_MAX)?);
        let part = part.filter(|found| found.strongroom == PART && found.parts.is_none() && seen.insert(digest));
        add(&mut plan, part.ok_or_else(bad)?.entries)?;
    }
    add(&mut plan, document.entries)?;
    Ok(plan)
}

fn add(plan: &mut Plan, rows: Vec<Row>) -> Result<(), TransferError> {
    for mut row in rows {
        let path = TreePath::new(std::mem::take(&mut row.path.0))?;
        plan.add(path, entry(row).ok_or_else(bad)?)?;
    }
    Ok(())
}

fn entry(row: Row) -> Option<Entry> {
    let mode = Some(Mode::from_raw_mode(row.mode)).filter(|_| row.mode <= 0o7777)?;
    Some(match row.kind {
        Kind::Dir => Entry::Dir { mode: Some(mode) },
        Kind::File => Entry::File { mode: Some(mode), digest: row.digest?.parse().ok()? },
        Kind::Link => {
            let target = row.target?.0;
            let is_target = !target.is_empty() && !target.contains(&0);
            is_target.then(|| Entry::Link { target: target.into() })?
        }
    })
}

fn bad() -> TransferError {
    TransferError::NotAnImport { problem: "the pinned document is no list of files" }
}

/// Writes the document of a folder, and pins it and its parts.
pub(crate) struct Writer<'a> {
    store: &'a Store,
    pin: NewPin<'a>,
    /// The rows of the document that is being written.
    rows: String,
    count: usize,
    /// The files in them.
    held: BTreeSet<Digest>,
    /// The parts that are written.
    parts: Vec<String>,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(store: &'a Store, pin: NewPin<'a>) -> Self {
        Self { store, pin, rows: String::new(), count: 0, held: BTreeSet::new(), parts: Vec::new() }
    }

    /// Adds a row, and the file that it is about.
    pub(crate) fn add(&mut self, row: &Row, file: Option<Digest>) -> Result<(), TransferError> {
        let row = json!(row).to_string();
        if self.count == ENTRIES || self.rows.len() + row.len() > TEXT {
            self.end_part()?;
        }
        if self.count > 0 {
            self.rows.push(',');
        }
        self.rows.push_str(&row);
        self.count += 1;
        self.held.extend(file);
        Ok(())
    }

    /// Writes the document and sets the pin; returns what it replaced.
    pub(crate) fn finish(mut self) -> Result<Option<Digest>, TransferError> {
        let more = format!(r#","parts":{}"#, json!(self.parts));
        let (digest, held) = self.put(WHOLE, &more)?;
        self.pin.set(&digest, PutNamed::new().references(held))
    }

    fn end_part(&mut self) -> Result<(), TransferError> {
        let (digest, held) = self.put(PART, "")?;
        self.parts.push(digest.to_string());
        self.pin.hold_part(&digest, held)
    }

    fn put(&mut self, kind: &str, more: &str) -> Result<(Digest, Vec<Digest>), TransferError> {
        let document = format!(r#"{{"strongroom":"{kind}","entries":[{}]{more}}}"#, self.rows);
        let digest = self.store.put(document, Algorithm::Sha256)?.digest;
        self.rows.clear();
        self.count = 0;
        Ok((digest, Vec::from_iter(std::mem::take(&mut self.held))))
    }
}
