//! Pins: names that keep blobs, for programs without manifests. They belong to the default domain.

use std::time::Duration;

use crate::blobs::BlobStore;
use crate::clock::{self, milliseconds};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::facts::{Key, Lookup, NamesOf, PinFact, Reader as _};
use crate::id::DomainId;
use crate::transaction::Request;

/// The longest name of a pin in bytes.
const MAX_NAME: usize = 1024;

/// The most blobs that one pin holds, so that its record stays of bounded size.
const MAX_HELD: usize = 65_536;

/// A pin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pin {
    /// The pin's name.
    pub name: String,
    /// The blob it names.
    pub digest: Digest,
    /// Other blobs that it keeps.
    pub references: Vec<Digest>,
    /// When it was set, by the wall clock, in milliseconds since 1970.
    pub created_ms: u64,
    /// After how much more open time of the store it expires; `None` for never.
    pub expires_in: Option<Duration>,
}

/// Options of a pin.
///
/// ```
/// # use std::time::Duration;
/// use strongroom::PinOptions;
///
/// let options = PinOptions::new().expires_after(Duration::from_secs(3600));
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PinOptions {
    references: Vec<Digest>,
    expires_after: Option<Duration>,
}

impl PinOptions {
    /// A pin that keeps its blob only and does not expire.
    pub fn new() -> Self {
        Self::default()
    }

    /// Blobs that the pin keeps too: those that the pinned document references. At most 65,535.
    pub fn references(mut self, references: impl Into<Vec<Digest>>) -> Self {
        self.references = references.into();
        self
    }

    /// After how much of the store's open time the pin expires. The next [collection](crate::Store::collect) after
    /// that, or [`Store::expire`](crate::Store::expire), removes it; until then it keeps its blobs.
    pub fn expires_after(mut self, open_time: Duration) -> Self {
        self.expires_after = Some(open_time);
        self
    }
}

impl BlobStore {
    pub(crate) fn pin(&self, name: &str, digest: &Digest, options: PinOptions) -> Result<()> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(Error::InvalidName { name: name.chars().take(200).collect(), max: MAX_NAME });
        }
        let mut digests = vec![*digest];
        digests.extend(options.references);
        Error::check_limit("the number of blobs of a pin", digests.len(), MAX_HELD)?;
        let now = self.clock.now();
        let expires = options.expires_after.map_or(0, |after| (now.open + milliseconds(after).max(1)).min(clock::MAX));
        let pin = PinFact { name: name.to_owned(), created: now.wall, expires, digests };
        self.log.commit(DomainId::DEFAULT, Request::Pin(pin)).map(drop)
    }

    pub(crate) fn get_pin(&self, name: &str) -> Result<Option<Pin>> {
        let key = Key::pin(DomainId::DEFAULT, name);
        let snapshot = self.tables.snapshot();
        let Some(fact) = snapshot.decode(&key, PinFact::decode)? else { return Ok(None) };
        let expires_in =
            (fact.expires != 0).then(|| Duration::from_millis(fact.expires.saturating_sub(self.clock.open_time())));
        let (digest, references) = snapshot.decoded(&key, fact.digests.split_first())?;
        Ok(Some(Pin {
            name: fact.name.clone(),
            digest: *digest,
            references: references.to_vec(),
            created_ms: fact.created,
            expires_in,
        }))
    }

    /// The names of pins in order, those behind `after`, at most `limit` of them.
    pub(crate) fn pins(&self, after: Option<&str>, limit: usize) -> Result<Vec<String>> {
        self.tables.snapshot().names(NamesOf::Pins(DomainId::DEFAULT), after, limit)
    }
}
