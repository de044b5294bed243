//! What a policy is evaluated on: the images of a repository, as far as rules look at them.

/// An image: a manifest of the repository, with what is known of it at the moment of the evaluation. Its tags are
/// given [beside it](super::Evaluation::add).
///
/// All times are milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'a, K> {
    /// What the caller calls it, such as its digest: unique in the repository. Among images of one age, the one with
    /// the lesser key counts as older.
    pub key: K,
    /// When it was pushed.
    pub pushed_ms: u64,
    /// When it was pulled last, if it was.
    pub pulled_ms: Option<u64>,
    /// When a tag was set to it last, if that is known. Only rules with a
    /// [sign of life](super::Selection::sign_of_life) look at it.
    pub tagged_ms: Option<u64>,
    /// When it was archived last, if it ever was.
    pub archived_ms: Option<u64>,
    /// When it was restored last, if it ever was.
    pub activated_ms: Option<u64>,
    /// Whether it can be pulled now.
    pub status: ImageStatus,
    /// Whether an index of the repository references it.
    pub parent: Parent,
    /// The image that this one is about, where it is a signature or another artifact with a subject.
    pub subject: Option<K>,
    /// The type of the artifact: `artifactType`, or the media type of the config.
    pub artifact_type: Option<&'a str>,
}

impl<K> Image<'_, K> {
    /// An image that was pushed, and nothing else.
    ///
    /// ```
    /// use strongroom::registry::lifecycle::{Image, ImageStatus};
    ///
    /// let image = Image { pulled_ms: Some(7), ..Image::new("sha256:…", 5) };
    /// assert_eq!((image.status, image.subject), (ImageStatus::Active, None));
    /// ```
    pub fn new(key: K, pushed_ms: u64) -> Self {
        Self {
            key,
            pushed_ms,
            pulled_ms: None,
            tagged_ms: None,
            archived_ms: None,
            activated_ms: None,
            status: ImageStatus::Active,
            parent: Parent::None,
            subject: None,
            artifact_type: None,
        }
    }

    /// When it began to count as stored: when it was pushed, or restored since.
    pub(super) fn stored_ms(&self) -> u64 {
        self.pushed_ms.max(self.activated_ms.unwrap_or(0))
    }

    /// When it was used last: pulled, or stored since.
    pub(super) fn used_ms(&self) -> u64 {
        match (self.pulled_ms, self.activated_ms) {
            (None, None) => self.pushed_ms,
            (pulled, activated) => pulled.unwrap_or(0).max(activated.unwrap_or(0)),
        }
    }

    /// What it is ordered by in a plan: how long it was where it is.
    pub(super) fn since_ms(&self) -> u64 {
        match (self.status, self.archived_ms) {
            (ImageStatus::Archived, Some(archived)) => archived,
            _ => self.stored_ms(),
        }
    }
}

/// Whether an image can be pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageStatus {
    /// It can: it is of the standard class.
    #[default]
    Active,
    /// It can't: it is of the archive class.
    Archived,
    /// It is being restored. No rule sees it, and it is left as it is.
    Activating,
}

/// Whether an index references an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Parent {
    /// No index does: it is an image of its own.
    #[default]
    None,
    /// At least one does. No rule sees it, and it stays while the index does.
    Index,
}

/// What a decision about an image rests on, as a hash: of its tags, times, status and parent.
///
/// Whoever carries out an [`Action`](super::Action) later computes it anew, in the same critical section, and leaves
/// the image as it is where the two differ: it was pulled, tagged, restored or put into an index meanwhile.
///
/// ```
/// use strongroom::registry::lifecycle::{Fingerprint, Image};
///
/// let image = Image::new("sha256:…", 5);
/// let decided = Fingerprint::of(&image, &["v1", "latest"]);
/// assert_eq!(decided, Fingerprint::of(&image, &["latest", "v1"]));
/// assert_ne!(decided, Fingerprint::of(&image, &["v1"]));
/// assert_ne!(decided, Fingerprint::of(&Image { pulled_ms: Some(9), ..image }, &["v1", "latest"]));
/// ```
///
/// It protects from accidents, not from somebody who searches for two sets of tags with one hash: who may set tags may
/// have the image deleted anyhow. It may change between versions of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint {
    tags: u64,
    state: u64,
}

impl Fingerprint {
    /// That of an image with these tags, in any order.
    pub fn of<K>(image: &Image<'_, K>, tags: &[impl AsRef<str>]) -> Self {
        // A sum does not depend on the order. The number of tags is in it, since no hash is zero but by accident.
        let tags = tags.iter().map(|tag| hash(tag.as_ref().bytes())).fold(0, u64::wrapping_add);
        let time = |time: Option<u64>| time.map_or([0; 9], |time| bytes(1, time));
        let state = [
            bytes(image.status as u8, image.pushed_ms),
            bytes(image.parent as u8, 0),
            time(image.pulled_ms),
            time(image.tagged_ms),
            time(image.archived_ms),
            time(image.activated_ms),
        ];
        Self { tags, state: hash(state.into_iter().flatten()) }
    }
}

fn bytes(first: u8, time: u64) -> [u8; 9] {
    let [a, b, c, d, e, f, g, h] = time.to_le_bytes();
    [first, a, b, c, d, e, f, g, h]
}

/// FNV-1a, then the finalizer of SplitMix64, which spreads each bit over all.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let fnv =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mixed = (fnv ^ (fnv >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
