//! Descriptions of images, and of the tags of public ones.

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};
use strongroom::registry::{ImageInfo, Reference, Repository, TagInfo};
use strongroom::{Digest, Error};

use super::call::{Answer, Call, time};
use super::error::ApiError;
use super::image_ids::{ImageId, image_not_found, output, unnamed};
use super::image_lists::{DEFAULT, Filter, MAX_SEEN};
use super::image_status::shown_status;
use super::page::Pager;
use super::{Built, Service, Target};

/// A page ends also where its text has about so many bytes: one image may have 1,000 tags.
const MAX_LEN: u64 = 2 << 20;

/// The tags of so many images are described in one page: each is looked at with all its tags.
const MAX_IMAGES: usize = 100;

pub const OPERATIONS: &[Built] = &[
    Service::Private.reads("DescribeImages", Target::Repository, describe),
    Service::Public.reads("DescribeImages", Target::Repository, describe),
    Service::Public.reads("DescribeImageTags", Target::Repository, describe_tags),
];

fn describe(call: &Call<'_>) -> Answer {
    let repository = call.repository()?;
    if call.input.has("imageIds") { describe_named(call, &repository) } else { describe_page(call, &repository) }
}

/// Each image once, however often it is named.
fn describe_named(call: &Call<'_>, repository: &Repository) -> Answer {
    let input = &call.input;
    if input.has("nextToken") || input.has("maxResults") {
        let constraint = "nextToken and maxResults must not be given with imageIds";
        return Err(ApiError::invalid_parameter("imageIds", constraint));
    }
    let given = input.list("imageIds");
    let ids = given.iter().map(|given| ImageId::parse(given).map_err(|unfound| unnamed(call, given, unfound)));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let references: Vec<Reference> = ids.iter().map(ImageId::reference).collect();
    let found = repository.image_many(&references).map_err(|error| call.error(error))?;
    let (filter, mut seen, mut page) = (Filter::of_named(input), HashSet::new(), Details::default());
    for ((given, id), image) in given.iter().zip(&ids).zip(found) {
        let image = image.filter(|image| id.is_of(&image.digest)).ok_or_else(|| image_not_found(call, given))?;
        if filter.takes(image.storage_class, &image.tags) && seen.insert(image.digest) {
            page.add(call, &image);
        }
    }
    call.keep(page.len)?;
    Ok(json!({ "imageDetails": page.shown }))
}

fn describe_page(call: &Call<'_>, repository: &Repository) -> Answer {
    let input = &call.input;
    let pager = Pager::of(&input.0, format!("DescribeImages/{}", repository.name()), DEFAULT)?;
    let mut after = pager.parsed::<Digest>()?;
    let (filter, mut seen, mut page, mut has_more) = (Filter::of(input), 0, Details::default(), true);
    while has_more && page.shown.len() < pager.limit && page.len < MAX_LEN && seen < MAX_SEEN {
        let left = pager.limit - page.shown.len();
        let images = repository.images(after.as_ref(), left).map_err(|error| call.error(error))?;
        has_more = images.next.is_some();
        seen += images.items.len();
        for image in &images.items {
            if page.len >= MAX_LEN {
                has_more = true;
                break;
            }
            after = Some(image.digest);
            if filter.takes(image.storage_class, &image.tags) {
                page.add(call, image);
            }
        }
    }
    call.keep(page.len)?;
    let end = after.filter(|_| has_more).map(|after| after.to_string());
    Ok(pager.answer("imageDetails", page.shown, end.as_deref()))
}

/// Images as they are described.
#[derive(Default)]
struct Details {
    shown: Vec<Value>,
    /// The length of their text, about.
    len: u64,
}

impl Details {
    fn add(&mut self, call: &Call<'_>, image: &ImageInfo) {
        let tags = image.tags.iter().map(|tag| tag.as_str().len() as u64 + 3).sum::<u64>();
        self.len += tags + 1024;
        self.shown.push(described(call, image));
    }
}

/// An image as `ImageDetail` of the model.
fn described(call: &Call<'_>, image: &ImageInfo) -> Value {
    let mut detail = output(call, []);
    let Value::Object(members) = &mut detail else { return detail };
    members.extend(common(image));
    if !image.tags.is_empty() {
        let tags: Vec<&str> = image.tags.iter().map(|tag| tag.as_str()).collect();
        members.insert("imageTags".to_owned(), json!(tags));
    }
    if call.built.service == Service::Private {
        members.insert("imageStatus".to_owned(), json!(shown_status(image.storage_class)));
        let times = [
            ("lastRecordedPullTime", image.pulled_ms),
            ("lastArchivedAt", image.archived_ms),
            ("lastActivatedAt", image.activated_ms),
        ];
        members.extend(times.into_iter().filter_map(|(member, at)| Some((member.to_owned(), time(at?)))));
        if let Some(subject) = &image.subject {
            members.insert("subjectManifestDigest".to_owned(), json!(subject.to_string()));
        }
    }
    detail
}

/// What is said of an image, wherever that is.
fn common(image: &ImageInfo) -> Map<String, Value> {
    let mut members = Map::from_iter([
        ("imageDigest".to_owned(), json!(image.digest.to_string())),
        ("imageSizeInBytes".to_owned(), json!(image.size)),
        ("imagePushedAt".to_owned(), time(image.pushed_ms)),
        ("imageManifestMediaType".to_owned(), json!(image.media_type)),
    ]);
    if let Some(artifact_type) = &image.artifact_type {
        members.insert("artifactMediaType".to_owned(), json!(artifact_type));
    }
    members
}

/// The tags of a repository, in order, with what each names.
fn describe_tags(call: &Call<'_>) -> Answer {
    let (repository, input) = (call.repository()?, &call.input);
    let pager = Pager::of(&input.0, format!("DescribeImageTags/{}", repository.name()), DEFAULT)?;
    let page = repository.tags(pager.after.as_deref(), pager.limit).map_err(|error| call.error(error))?;
    let (mut tags, mut digests, mut next) = (Vec::new(), HashSet::new(), page.next);
    for tag in &page.items {
        match repository.resolve(tag) {
            Err(Error::ManifestNotFound { .. }) => {} // removed since
            Ok(tag) if digests.len() >= MAX_IMAGES && !digests.contains(&tag.digest) => {
                next = tags.last().map(|last: &TagInfo| last.tag.to_string());
                break;
            }
            Ok(tag) => {
                digests.insert(tag.digest);
                tags.push(tag);
            }
            Err(error) => return Err(call.error(error)),
        }
    }
    let references: Vec<Reference> = digests.into_iter().map(Reference::Digest).collect();
    let found = repository.image_many(&references).map_err(|error| call.error(error))?;
    let images: BTreeMap<Digest, ImageInfo> = found.into_iter().flatten().map(|image| (image.digest, image)).collect();
    let shown = tags.iter().filter_map(|tag| {
        let image = images.get(&tag.digest)?; // it was deleted since, where there is none
        Some(json!({
            "imageTag": tag.tag.as_str(), "createdAt": time(tag.updated_ms), "imageDetail": common(image)
        }))
    });
    let shown: Vec<Value> = shown.collect();
    call.keep(1024 * shown.len() as u64)?;
    Ok(pager.answer("imageTagDetails", shown, next.as_deref()))
}
