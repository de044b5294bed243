//! Lists of images: which are listed, and how a list goes on.
//!
//! A list is in the order of the store, image by image, and of each by its tags. A page goes on behind the image, or
//! the tag of an image, with which the one before ended: images and tags that are there all along are listed once,
//! whatever comes and goes meanwhile. Of an image with more than 1,000 tags, ECR's limit, 1,000 are listed.

use serde_json::Value;
use strongroom::registry::{Reference, StorageClass, Tag};
use strongroom::{Digest, Error};

use super::call::{Answer, Call, Input};
use super::image_ids::shown;
use super::image_status::StatusFilter;
use super::page::{Pager, invalid_token};
use super::{Built, Service, Target};

/// How many entries a page has where no number is asked for.
pub const DEFAULT: usize = 100;

/// So many images are looked at for a page. One may have fewer entries than were asked for, even none, although more
/// follow.
pub const MAX_SEEN: usize = 5000;

/// The length of an entry of a list, about.
const ENTRY_LEN: u64 = 256;

pub const OPERATIONS: &[Built] = &[Service::Private.reads("ListImages", Target::Repository, list)];

/// Which images are listed.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    is_tagged: Option<bool>,
    status: StatusFilter,
}

impl Filter {
    pub fn of(input: &Input) -> Self {
        let is_tagged = match input.within("filter", "tagStatus").and_then(Value::as_str) {
            Some("TAGGED") => Some(true),
            Some("UNTAGGED") => Some(false),
            _ => None,
        };
        Self { is_tagged, status: StatusFilter::of(input.within("filter", "imageStatus")) }
    }

    /// For images that are asked for by name: of those, whatever their status is, where none is asked for.
    pub fn of_named(input: &Input) -> Self {
        let filter = Self::of(input);
        let has_status = input.within("filter", "imageStatus").is_some();
        Self { status: if has_status { filter.status } else { StatusFilter::Any }, ..filter }
    }

    pub fn takes(&self, class: StorageClass, tags: &[Tag]) -> bool {
        self.status.takes(class) && self.is_tagged.is_none_or(|is_tagged| is_tagged != tags.is_empty())
    }
}

/// Where a page ended: with an image, or with a tag of one of which others may follow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Position {
    digest: Digest,
    tag: Option<Tag>,
}

impl Position {
    fn parse(text: &str) -> Option<Self> {
        let (digest, tag) = text.split_once(' ').map_or((text, None), |(digest, tag)| (digest, Some(tag)));
        Some(Self { digest: digest.parse().ok()?, tag: tag.map(str::parse).transpose().ok()? })
    }

    fn text(&self) -> String {
        match &self.tag {
            Some(tag) => format!("{} {tag}", self.digest),
            None => self.digest.to_string(),
        }
    }
}

/// A page of a list that is being filled.
struct Entries {
    limit: usize,
    ids: Vec<Value>,
    position: Option<Position>,
}

impl Entries {
    /// Adds an image with those of its tags that come behind one; says whether all have found place.
    fn add(&mut self, digest: Digest, tags: &[Tag], after: Option<&Tag>) -> bool {
        if tags.is_empty() && after.is_none() {
            if self.is_full() {
                return false;
            }
            self.ids.push(shown(&digest, None));
        }
        for tag in tags.iter().filter(|tag| after.is_none_or(|after| *tag > after)) {
            if self.is_full() {
                return false;
            }
            self.ids.push(shown(&digest, Some(tag)));
            self.position = Some(Position { digest, tag: Some(tag.clone()) });
        }
        self.passed(digest);
        true
    }

    fn is_full(&self) -> bool {
        self.ids.len() >= self.limit
    }

    fn passed(&mut self, digest: Digest) {
        self.position = Some(Position { digest, tag: None });
    }
}

/// One entry for each tag of an image, and one for an image without tags.
fn list(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let pager = Pager::of(&input.0, format!("ListImages/{}", repository.name()), DEFAULT)?;
    let filter = Filter::of(input);
    let position = pager.after.as_ref().map(|after| Position::parse(after).ok_or_else(invalid_token)).transpose()?;
    let mut entries = Entries { limit: pager.limit, ids: Vec::new(), position: position.clone() };
    let mut has_more = false;
    if let Some(Position { digest, tag: Some(tag) }) = position {
        match repository.image(&Reference::Digest(digest)) {
            Ok(image) if filter.takes(image.storage_class, &image.tags) => {
                has_more = !entries.add(digest, &image.tags, Some(&tag));
            }
            Ok(_) | Err(Error::ManifestNotFound { .. }) => entries.passed(digest),
            Err(error) => return Err(call.error(error)),
        }
    }
    let mut seen = 0;
    while !has_more {
        let after = entries.position.as_ref().map(|position| position.digest);
        let left = (pager.limit - entries.ids.len()).max(1);
        let page = repository.image_facts(after.as_ref(), left).map_err(|error| call.error(error))?;
        seen += page.items.len();
        for image in &page.items {
            if !filter.takes(image.storage_class, &image.tags) {
                entries.passed(image.digest);
            } else if !entries.add(image.digest, &image.tags, None) {
                has_more = true;
                break;
            }
        }
        if page.next.is_none() {
            break;
        }
        has_more |= entries.is_full() || seen >= MAX_SEEN;
    }
    call.keep(ENTRY_LEN.saturating_mul(entries.ids.len() as u64))?;
    let end = entries.position.filter(|_| has_more).map(|position| position.text());
    Ok(pager.answer("imageIds", entries.ids, end.as_deref()))
}
