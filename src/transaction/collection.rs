//! Requests of garbage collection: forgetting unreferenced blobs, and moving others.

use crate::digest::Digest;
use crate::envelope::KeyNumber;
use crate::error::Result;
use crate::facts::{Idle, Lookup as _, Place};
use crate::id::FileId;
use crate::segment::Descriptor;
use crate::transaction::{Apply, Changes, MANY, Op};

/// Condemns blobs.
#[derive(Debug)]
pub(crate) struct Condemn(pub(crate) Vec<Idle>);

impl Apply for Condemn {
    fn reads_much(&self) -> bool {
        self.0.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        for idle in &self.0 {
            if facts.idle(idle)?.is_some_and(|idle| !idle.condemned) {
                let (at, value) = idle.condemn().fact();
                facts.set(at, value);
            }
        }
        Ok(Vec::new())
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Forgets blobs that were condemned. Each comes with its digest, for the log's operations, where that can be read.
#[derive(Debug)]
pub(crate) struct Forget(pub(crate) Vec<(Idle, Option<Digest>)>);

impl Apply for Forget {
    fn reads_much(&self) -> bool {
        self.0.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        let mut ops = Vec::new();
        for (idle, digest) in &self.0 {
            // The entry is there, and condemned: nothing holds the blob, and nobody has asked for it since.
            if !facts.idle(idle)?.is_some_and(|idle| idle.condemned) {
                continue;
            }
            if let Some(blob) = facts.blob_by_key(&idle.key)? {
                facts.change(idle.key, Some(&blob), None)?;
                ops.extend(digest.map(|digest| Op::Remove { digest }));
            }
        }
        Ok(ops)
    }

    fn frees_space(&self) -> bool {
        true
    }
}

/// Moves blobs to a pack that has copies of their frames.
#[derive(Debug)]
pub(crate) struct MoveFrames {
    pub(crate) file: FileId,
    pub(crate) key: KeyNumber,
    /// How many bytes of frames the pack has, including those of blobs that were removed or moved elsewhere meanwhile.
    pub(crate) bytes: u64,
    /// Whether earlier commits published frames of the pack. If none of those is left, the pack was given up with the
    /// last, and no blob may be moved into it any more.
    pub(crate) goes_on: bool,
    pub(crate) moves: Vec<Move>,
}

/// A blob's place, and the frame in the pack that has the same content.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Move {
    pub(crate) from: Place,
    pub(crate) to: Descriptor,
    pub(crate) offset: u64,
}

impl Apply for MoveFrames {
    fn reads_much(&self) -> bool {
        self.moves.len() > MANY
    }

    fn apply(&self, facts: &mut Changes<'_>) -> Result<Vec<Op>> {
        if self.goes_on && facts.segment(self.file)?.is_none() {
            return Ok(Vec::new());
        }
        for Move { from, to, offset } in &self.moves {
            facts.put_elsewhere(from, to, self.file, *offset)?;
        }
        facts.set_frame_bytes(self.file, self.bytes)?;
        Ok(Vec::new())
    }

    fn frees_space(&self) -> bool {
        true
    }

    fn segment_key(&self) -> Option<KeyNumber> {
        Some(self.key)
    }
}
