//! Differences that a recount finds, precise enough to be repaired.

use crate::check::Finding;
use crate::envelope::KeyNumber;
use crate::facts::{Family, Idle, Key, Place, ReferrerFact, SegmentFact, SegmentKind};
use crate::id::{FileId, RepositoryId};

/// A fact that is not what follows from the others.
#[derive(Clone, Debug)]
pub(crate) enum Wrong {
    /// The count of a blob, a link or a manifest; or how many documents a repository has.
    Count { key: Key, name: String, stored: u32, counted: u64 },
    /// What blobs a file holds. Nothing is on record where there is no fact of it.
    Segment { file: FileId, stored: Option<SegmentFact>, counted: Live, kind: SegmentKind },
    /// A file that uploads write to, and no upload does.
    Abandoned(FileId),
    /// An entry of the idle list: one that is missing, or one that is too many. Of which fact, if it
    /// says so.
    Idle { at: Key, key: Option<Key>, is_there: bool },
    /// That a manifest refers to a subject: missing, or without the manifest.
    Referrer { key: Key, fact: ReferrerFact, repository: String, is_there: bool },
    /// What leads from a manifest to a tag that names it: missing, or without the tag.
    TagOf { key: Key, tag: String, repository: String, is_there: bool },
    /// What no other fact tells how to mend.
    Beyond { what: String, stored: u64, counted: u64 },
}

/// What lives in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Live {
    pub(crate) frames: u32,
    pub(crate) bytes: u64,
    pub(crate) key: KeyNumber,
}

impl Live {
    pub(crate) fn add(&mut self, place: &Place) {
        self.frames = self.frames.saturating_add(1);
        self.bytes = self.bytes.saturating_add(place.frame_len());
        self.key = place.key;
    }
}

impl Wrong {
    /// What is held, and is not there.
    pub(crate) fn missing(what: String, counted: u64) -> Self {
        Self::Beyond { what, stored: 0, counted }
    }

    /// Whether other facts tell how it should be.
    pub(crate) fn can_be_mended(&self) -> bool {
        !matches!(self, Self::Beyond { .. })
    }

    /// It, as users are told of it.
    pub(crate) fn finding(self) -> Finding {
        let (what, stored, counted) = match self {
            Self::Count { key, name, stored, counted } => {
                let what = if key.family == Family::Repository { name } else { format!("references to {name}") };
                (what, stored.into(), counted)
            }
            Self::Segment { file, stored: None, counted, .. } => {
                (format!("frames in the unknown segment {file}"), 0, counted.frames.into())
            }
            Self::Segment { file, stored: Some(stored), counted, .. } => {
                if stored.live_frames != counted.frames {
                    (format!("live frames of {file}"), stored.live_frames.into(), counted.frames.into())
                } else if stored.live_bytes != counted.bytes {
                    (format!("live bytes of {file}"), stored.live_bytes, counted.bytes)
                } else {
                    (format!("segment without a live frame: {file}"), 1, 0)
                }
            }
            Self::Abandoned(file) => (format!("uploads that write to {file}"), 0, 1),
            Self::Idle { at, key, is_there } => {
                let what = key.map_or_else(|| format!("{at:?}"), |key| format!("{key:?}"));
                (format!("entry of {what} in the list of what nothing holds"), is_there.into(), (!is_there).into())
            }
            Self::Referrer { fact, repository, is_there, .. } => {
                let what = format!("referrer {} of {} in {repository}", fact.digest, fact.subject);
                (what, is_there.into(), (!is_there).into())
            }
            Self::TagOf { tag, repository, is_there, .. } => {
                (format!("way from a manifest to its tag {tag} of {repository}"), is_there.into(), (!is_there).into())
            }
            Self::Beyond { what, stored, counted } => (what, stored, counted),
        };
        Finding::Count { what, stored, counted }
    }

    /// An entry of the idle list that is missing.
    pub(crate) fn unlisted(idle: &Idle) -> Self {
        Self::Idle { at: idle.at(), key: Some(idle.key), is_there: false }
    }
}

/// The name of something that a repository has, as users are told of it.
pub(crate) fn unknown(repository: RepositoryId) -> String {
    format!("facts of the unknown repository {repository:?}")
}
