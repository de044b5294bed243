//! Operations: what a commit did, for recovery, for readers of events, and for replicas.
//!
//! A list of `code u8 | length u32 | fields`. A reader skips codes it does not know.

use crate::digest::{Algorithm, Digest};
use crate::facts::{Named, StorageClass, put_digest, take_digest};
use crate::id::{FileId, RepositoryId, UploadId};
use crate::wire::{Fields, PutFields};

/// One thing that happened to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// A blob was stored.
    Put { digest: Digest, len: u64 },
    /// A blob was removed.
    Remove { digest: Digest },
    /// A named file was set: its content and how long that is, then what it references; and the content before.
    SetNamed { name: String, len: u64, replaced: Option<Digest>, digests: Vec<Digest> },
    /// A named file that had this content went.
    RemoveNamed { name: String, digest: Digest, why: Gone },
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
    /// A repository got a blob: pushed or mounted.
    Link { repository: Named, digest: Digest },
    /// A repository no longer has a blob.
    Unlink { repository: Named, digest: Digest },
    /// A repository was created.
    CreateRepository { repository: Named },
    /// A repository was deleted.
    DeleteRepository { repository: Named },
    /// The settings of a repository changed.
    SetRepository { repository: Named },
    /// A manifest was pushed.
    PutManifest { repository: Named, digest: Digest, media_type: String, subject: Option<Digest> },
    /// A manifest was deleted.
    DeleteManifest { repository: Named, digest: Digest },
    /// A tag was set.
    Tag { repository: Named, tag: String, digest: Digest, old: Option<Digest> },
    /// A tag was removed.
    Untag { repository: Named, tag: String, digest: Digest },
    /// Manifests were pulled: when the last time was, in milliseconds since 1970.
    Pull { repository: Named, digest: Digest, time: u64 },
    /// Tags went with their repository, which was deleted before.
    Purge { repository: RepositoryId, tags: Vec<String> },
    /// A document of a repository was set or removed.
    Document { repository: Named, name: String },
    /// A manifest was archived or restored.
    SetStorageClass { repository: Named, digest: Digest, class: StorageClass },
}

/// Why something went. The numbers stand in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Gone {
    /// Somebody removed it.
    Removed = 0,
    /// Its time had come.
    Expired = 1,
}

fn put_option(out: &mut Vec<u8>, digest: Option<&Digest>) {
    out.put_u8(u8::from(digest.is_some()));
    digest.iter().for_each(|digest| put_digest(out, digest));
}

fn take_option(fields: &mut Fields<'_>) -> Option<Option<Digest>> {
    match fields.u8()? {
        0 => Some(None),
        _ => take_digest(fields).map(Some),
    }
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
            Self::SetNamed { name, len, replaced, digests } => {
                out.put_text(name);
                out.put_u64(*len);
                put_option(out, replaced.as_ref());
                digests.iter().for_each(|digest| put_digest(out, digest));
                3
            }
            Self::RemoveNamed { name, digest, why } => {
                out.put_text(name);
                put_digest(out, digest);
                out.put_u8(*why as u8);
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
            Self::Link { repository, digest } => {
                repository.put(out);
                put_digest(out, digest);
                10
            }
            Self::Unlink { repository, digest } => {
                repository.put(out);
                put_digest(out, digest);
                11
            }
            Self::CreateRepository { repository } => {
                repository.put(out);
                12
            }
            Self::DeleteRepository { repository } => {
                repository.put(out);
                13
            }
            Self::SetRepository { repository } => {
                repository.put(out);
                14
            }
            Self::PutManifest { repository, digest, media_type, subject } => {
                repository.put(out);
                put_digest(out, digest);
                out.put_text(media_type);
                put_option(out, subject.as_ref());
                15
            }
            Self::DeleteManifest { repository, digest } => {
                repository.put(out);
                put_digest(out, digest);
                16
            }
            Self::Tag { repository, tag, digest, old } => {
                repository.put(out);
                out.put_text(tag);
                put_digest(out, digest);
                put_option(out, old.as_ref());
                17
            }
            Self::Untag { repository, tag, digest } => {
                repository.put(out);
                out.put_text(tag);
                put_digest(out, digest);
                18
            }
            Self::Pull { repository, digest, time } => {
                repository.put(out);
                put_digest(out, digest);
                out.put_u64(*time);
                19
            }
            Self::Purge { repository, tags } => {
                out.put_u48(repository.0);
                tags.iter().for_each(|tag| out.put_text(tag));
                20
            }
            Self::Document { repository, name } => {
                repository.put(out);
                out.put_text(name);
                21
            }
            Self::SetStorageClass { repository, digest, class } => {
                repository.put(out);
                put_digest(out, digest);
                out.put_u8(class.code());
                22
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
                let (name, len, replaced) = (fields.text()?, fields.u64()?, take_option(&mut fields)?);
                let mut digests = Vec::new();
                while !fields.is_empty() {
                    digests.push(take_digest(&mut fields)?);
                }
                Self::SetNamed { name, len, replaced, digests }
            }
            4 => {
                let (name, digest) = (fields.text()?, take_digest(&mut fields)?);
                let why = match fields.u8()? {
                    0 => Gone::Removed,
                    1 => Gone::Expired,
                    _ => return None,
                };
                Self::RemoveNamed { name, digest, why }
            }
            5 => Self::BeginUpload { id: UploadId(fields.array()?), algorithm: Algorithm::from_code(fields.u8()?)? },
            6 => Self::AppendUpload { id: UploadId(fields.array()?), offset: fields.u64()?, len: fields.u64()? },
            7 => {
                let id = UploadId(fields.array()?);
                Self::CommitUpload { id, digest: take_digest(&mut fields)?, len: fields.u64()? }
            }
            8 => Self::CancelUpload { id: UploadId(fields.array()?) },
            9 => Self::DropFile { file: FileId(fields.u48()?) },
            10 => Self::Link { repository: Named::take(&mut fields)?, digest: take_digest(&mut fields)? },
            11 => Self::Unlink { repository: Named::take(&mut fields)?, digest: take_digest(&mut fields)? },
            12 => Self::CreateRepository { repository: Named::take(&mut fields)? },
            13 => Self::DeleteRepository { repository: Named::take(&mut fields)? },
            14 => Self::SetRepository { repository: Named::take(&mut fields)? },
            15 => Self::PutManifest {
                repository: Named::take(&mut fields)?,
                digest: take_digest(&mut fields)?,
                media_type: fields.text()?,
                subject: take_option(&mut fields)?,
            },
            16 => Self::DeleteManifest { repository: Named::take(&mut fields)?, digest: take_digest(&mut fields)? },
            17 => Self::Tag {
                repository: Named::take(&mut fields)?,
                tag: fields.text()?,
                digest: take_digest(&mut fields)?,
                old: take_option(&mut fields)?,
            },
            18 => Self::Untag {
                repository: Named::take(&mut fields)?,
                tag: fields.text()?,
                digest: take_digest(&mut fields)?,
            },
            19 => Self::Pull {
                repository: Named::take(&mut fields)?,
                digest: take_digest(&mut fields)?,
                time: fields.u64()?,
            },
            20 => {
                let repository = RepositoryId(fields.u48()?);
                let mut tags = Vec::new();
                while !fields.is_empty() {
                    tags.push(fields.text()?);
                }
                Self::Purge { repository, tags }
            }
            21 => Self::Document { repository: Named::take(&mut fields)?, name: fields.text()? },
            22 => Self::SetStorageClass {
                repository: Named::take(&mut fields)?,
                digest: take_digest(&mut fields)?,
                class: StorageClass::from_code(fields.u8()?)?,
            },
            _ => return Some(None),
        };
        fields.end()?;
        Some(Some(op))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> Named {
        Named { id: RepositoryId(7), name: "a/b".into() }
    }

    #[test]
    fn operations_round_trip_and_unknown_ones_are_skipped() {
        let digest = Digest::of(Algorithm::Sha512, b"x");
        let id = UploadId([1; 16]);
        let ops = vec![
            Op::Put { digest, len: 3 },
            Op::Remove { digest },
            Op::SetNamed {
                name: "a/b".into(),
                len: 7,
                replaced: Some(digest),
                digests: vec![digest, Digest::of(Algorithm::Sha256, b"y")],
            },
            Op::RemoveNamed { name: "ü".into(), digest, why: Gone::Expired },
            Op::BeginUpload { id, algorithm: Algorithm::Blake3 },
            Op::AppendUpload { id, offset: 1, len: 2 },
            Op::CommitUpload { id, digest, len: 9 },
            Op::CancelUpload { id },
            Op::DropFile { file: FileId(77) },
            Op::Link { repository: repository(), digest },
            Op::Unlink { repository: repository(), digest },
            Op::CreateRepository { repository: repository() },
            Op::DeleteRepository { repository: repository() },
            Op::SetRepository { repository: repository() },
            Op::PutManifest { repository: repository(), digest, media_type: "a/b".into(), subject: Some(digest) },
            Op::DeleteManifest { repository: repository(), digest },
            Op::Tag { repository: repository(), tag: "v1".into(), digest, old: None },
            Op::Untag { repository: repository(), tag: "v1".into(), digest },
            Op::Pull { repository: repository(), digest, time: 8 },
            Op::Purge { repository: RepositoryId(7), tags: vec!["v1".into(), "v2".into()] },
            Op::Document { repository: repository(), name: "policy".into() },
            Op::SetStorageClass { repository: repository(), digest, class: StorageClass::Archive },
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
