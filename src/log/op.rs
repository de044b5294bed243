//! Operations: what happened, as the log tells it to recovery, to those who follow events, and to replicas.
//!
//! A list of `code u8 | length u32 | fields`. A reader skips codes it does not know.

use crate::digest::{Algorithm, Digest};
use crate::facts::{put_digest, take_digest};
use crate::id::{FileId, UploadId};
use crate::wire::{Fields, PutFields};

/// One thing that happened to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A blob was stored.
    Put { digest: Digest, len: u64 },
    /// A blob was removed.
    Remove { digest: Digest },
    /// A pin was set: the pinned blob, then what it references.
    Pin { name: String, digests: Vec<Digest> },
    /// A pin was removed, or expired.
    Unpin { name: String },
    /// An upload was begun.
    BeginUpload { id: UploadId, algorithm: Algorithm },
    /// Content was added to an upload.
    AppendUpload { id: UploadId, offset: u64, len: u64 },
    /// An upload became a blob.
    CommitUpload { id: UploadId, digest: Digest, len: u64 },
    /// An upload was given up, or expired.
    CancelUpload { id: UploadId },
    /// A file that holds nothing alive was given up.
    DropFile { file: FileId },
}

impl Op {
    /// Appends the operation.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put(&[0; 5]);
        let code = match self {
            Self::Put { digest, len } => {
                put_digest(out, digest);
                out.put_u64(*len);
                1
            }
            Self::Remove { digest } => {
                put_digest(out, digest);
                2
            }
            Self::Pin { name, digests } => {
                put_text(out, name);
                digests.iter().for_each(|digest| put_digest(out, digest));
                3
            }
            Self::Unpin { name } => {
                put_text(out, name);
                4
            }
            Self::BeginUpload { id, algorithm } => {
                out.put(&id.0);
                out.put_u8(algorithm.code());
                5
            }
            Self::AppendUpload { id, offset, len } => {
                out.put(&id.0);
                out.put_u64(*offset);
                out.put_u64(*len);
                6
            }
            Self::CommitUpload { id, digest, len } => {
                out.put(&id.0);
                put_digest(out, digest);
                out.put_u64(*len);
                7
            }
            Self::CancelUpload { id } => {
                out.put(&id.0);
                8
            }
            Self::DropFile { file } => {
                out.put_u48(file.0);
                9
            }
        };
        let len = u32::try_from(out.len() - start - 5).unwrap_or(u32::MAX);
        if let Some((code_at, len_at)) = out.get_mut(start..start + 5).and_then(<[u8]>::split_first_mut) {
            *code_at = code;
            len_at.copy_from_slice(&len.to_le_bytes());
        }
    }

    /// Parses a record's operations; `None` where they hold what no writer puts there.
    pub(crate) fn parse_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let mut fields = Fields(bytes);
        let mut ops = Vec::new();
        while !fields.is_empty() {
            let code = fields.u8()?;
            let len = usize::try_from(fields.u32()?).ok()?;
            ops.extend(Self::parse(code, Fields(fields.bytes(len)?))?);
        }
        Some(ops)
    }

    /// Parses one operation: `Some(None)` for one of a later version.
    fn parse(code: u8, mut fields: Fields<'_>) -> Option<Option<Self>> {
        let op = match code {
            1 => Self::Put { digest: take_digest(&mut fields)?, len: fields.u64()? },
            2 => Self::Remove { digest: take_digest(&mut fields)? },
            3 => {
                let name = take_text(&mut fields)?;
                let mut digests = Vec::new();
                while !fields.is_empty() {
                    digests.push(take_digest(&mut fields)?);
                }
                Self::Pin { name, digests }
            }
            4 => Self::Unpin { name: take_text(&mut fields)? },
            5 => Self::BeginUpload { id: UploadId(fields.array()?), algorithm: Algorithm::from_code(fields.u8()?)? },
            6 => Self::AppendUpload { id: UploadId(fields.array()?), offset: fields.u64()?, len: fields.u64()? },
            7 => {
                let id = UploadId(fields.array()?);
                Self::CommitUpload { id, digest: take_digest(&mut fields)?, len: fields.u64()? }
            }
            8 => Self::CancelUpload { id: UploadId(fields.array()?) },
            9 => Self::DropFile { file: FileId(fields.u48()?) },
            _ => return Some(None),
        };
        fields.end()?;
        Some(Some(op))
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.put(text.as_bytes());
}

fn take_text(fields: &mut Fields<'_>) -> Option<String> {
    String::from_utf8(fields.bytes16()?.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_round_trip_and_unknown_ones_are_skipped() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let id = UploadId([1; 16]);
        let ops = vec![
            Op::Put { digest, len: 3 },
            Op::Remove { digest },
            Op::Pin { name: "a/b".into(), digests: vec![digest, Digest::of(Algorithm::Sha256, b"y")] },
            Op::Unpin { name: "ü".into() },
            Op::BeginUpload { id, algorithm: Algorithm::Blake3 },
            Op::AppendUpload { id, offset: 1, len: 2 },
            Op::CommitUpload { id, digest, len: 9 },
            Op::CancelUpload { id },
            Op::DropFile { file: FileId(77) },
        ];
        let mut bytes = Vec::new();
        ops.iter().for_each(|op| op.encode(&mut bytes));
        assert_eq!(Op::parse_all(&bytes).unwrap(), ops);
        for cut in 1..bytes.len() {
            assert!(Op::parse_all(&bytes[..cut]).is_none_or(|some| some.len() < ops.len()));
        }
        bytes.extend([200, 2, 0, 0, 0, 1, 1]);
        assert_eq!(Op::parse_all(&bytes).unwrap(), ops);
    }
}
