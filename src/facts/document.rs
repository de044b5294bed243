//! What the value of a document's fact says.

use bytes::Bytes;

use crate::facts::Value;
use crate::id::Lsn;
use crate::wire::{Fields, PutFields};

/// A document of a repository:
///
/// ```text
/// revision u64 (the LSN of the commit that set it) | updated u64 (ms since 1970) | name text | content
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DocumentFact {
    pub(crate) revision: Lsn,
    pub(crate) updated: u64,
    pub(crate) name: String,
    pub(crate) content: Bytes,
}

impl DocumentFact {
    pub(crate) fn encode(&self) -> Value {
        let mut out = Vec::with_capacity(18 + self.name.len() + self.content.len());
        out.put_u64(self.revision.0);
        out.put_u64(self.updated);
        out.put_text(&self.name);
        out.put(&self.content);
        Value::new(&out)
    }

    /// Parses a fact; `None` where it holds what no writer puts there.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        let (revision, updated) = (Lsn(fields.u64()?), fields.u64()?);
        Some(Self { revision, updated, name: fields.text()?, content: Bytes::copy_from_slice(fields.0) })
    }

    /// The revision in a fact.
    pub(crate) fn revision_of(bytes: &[u8]) -> Option<Lsn> {
        Fields(bytes).u64().map(Lsn)
    }
}
