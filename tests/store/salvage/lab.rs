//! Stores with a known history, ways to damage their logs, and the comparison of what is lost with what is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use strongroom::vfs::{SimVfs, Vfs as _};
use strongroom::{ChangedNames, Clock, Digest, Error, Finding, Lsn, Options, SalvageReport, ScrubOptions, Store};

use crate::common::{Model, Pair, Random, Step, observe, options, outline};

/// A step of a history: the commits that it may have made, and what it led to.
pub struct Done {
    pub after: Lsn,
    pub until: Lsn,
    pub model: Model,
}

/// A store that was made by a history, and is not open.
pub struct Made {
    pub disk: SimVfs,
    pub history: Vec<Done>,
}

impl Made {
    pub fn last(&self) -> &Model {
        &self.history.last().expect("a history").model
    }
}

/// Runs a history, with as large a table as said.
pub fn make(disk: &SimVfs, steps: &[Step], memtable: usize, close: bool) -> Made {
    let on = disk.clone();
    let make_options = move |clock: &Clock| options(&on, clock).memtable_size(memtable);
    let mut pair = Pair::at("/store", make_options).expect("a working disk");
    let mut history = vec![Done { after: Lsn::default(), until: Lsn::default(), model: Model::default() }];
    for step in steps {
        let after = pair.store.as_ref().expect("open").last_lsn();
        pair.run(step).expect("a working disk");
        let until = pair.store.as_ref().expect("open").last_lsn();
        history.push(Done { after, until, model: pair.model.clone() });
    }
    if close {
        pair.store.take().expect("open").close().expect("a working disk");
    } else {
        pair.kill();
    }
    Made { disk: disk.restarted(), history }
}

pub fn open(disk: &SimVfs) -> Result<Store, Error> {
    options(disk, &Clock::manual()).create(false).open("/store")
}

pub fn salvaging(disk: &SimVfs) -> Options {
    options(disk, &Clock::manual()).create(false)
}

pub fn logs(disk: &SimVfs) -> Vec<PathBuf> {
    disk.files().into_iter().filter(|path| path.starts_with("/store/log")).collect()
}

/// Every file but the lock, with its content.
pub fn contents(disk: &SimVfs) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files().into_iter().filter(|path| !path.ends_with("LOCK"));
    files.map(|path| (path.clone(), disk.read_file(path).unwrap())).collect()
}

pub fn lose(disk: &SimVfs, path: &Path) {
    disk.remove(path).unwrap();
    disk.open_dir(path.parent().unwrap()).unwrap().sync().unwrap();
}

/// Damages a log file, a late one rather, and says which and how.
pub fn damage(disk: &SimVfs, random: &mut Random) -> (PathBuf, String) {
    let logs = logs(disk);
    let from_end = random.below(logs.len() as u64).min(random.below(logs.len() as u64)) as usize;
    let path = logs[logs.len() - 1 - from_end].clone();
    let content = disk.read_file(&path).unwrap();
    // Where the file has something, mostly.
    let used = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1) as u64;
    let how = match random.below(12) {
        0..=3 => {
            let bits: Vec<_> = (0..=random.below(3)).map(|_| random.below(used * 8)).collect();
            bits.iter().for_each(|bit| disk.flip_bit(&path, *bit).unwrap());
            format!("bits {bits:?} flipped")
        }
        4..=5 => {
            let len = random.below(used) as usize;
            disk.tamper(&path, |content| content.truncate(len)).unwrap();
            format!("cut to {len} of {}", content.len())
        }
        6..=8 => {
            let (from, len) = (random.below(used) as usize & !511, [512, 4096][random.below(2) as usize]);
            let to = (from + len).min(content.len());
            disk.tamper(&path, |content| content[from..to].fill(0)).unwrap();
            format!("zeros at {from}..{to}")
        }
        9 => {
            disk.flip_bit(&path, random.below(512 * 8)).unwrap();
            "header damaged".to_owned()
        }
        10 => {
            let len = used.saturating_sub(1 + random.below(200)) as usize;
            disk.tamper(&path, |content| content[len..].fill(0)).unwrap();
            format!("end gone from {len} on")
        }
        _ => {
            lose(disk, &path);
            "lost".to_owned()
        }
    };
    (path.clone(), format!("{} {how}", path.display()))
}

/// What can be told apart in a model, and what is said of it.
pub fn entities(model: &Model) -> BTreeMap<String, String> {
    let model = outline(model);
    let mut all = BTreeMap::new();
    let mut add = |name: String, value: &dyn Debug| drop(all.insert(name, format!("{value:?}")));
    model.blobs.iter().for_each(|(digest, content)| add(blob(digest), &content.len()));
    model.files.iter().for_each(|(name, file)| add(format!("file {name}"), file));
    model.uploads.iter().for_each(|(id, content)| add(format!("upload {id}"), &(content.len(), model.owners.get(id))));
    for (name, repository) in &model.repositories {
        add(format!("repository {name}"), &repository.settings);
        repository.links.keys().for_each(|digest| add(format!("link {name} {digest}"), &()));
        for (digest, one) in &repository.manifests {
            add(format!("manifest {name} {digest}"), &(&one.media_type, &one.artifact_type, one.subject));
        }
        repository.tags.iter().for_each(|(tag, digest)| add(format!("tag {name} {tag}"), digest));
    }
    all
}

fn blob(digest: &Digest) -> String {
    format!("blob {digest}")
}

/// The names that differ.
pub fn differing(one: &Model, other: &Model) -> BTreeSet<String> {
    let (one, other) = (entities(one), entities(other));
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

/// The names that changes name; with a repository, all that may be in it.
fn named(changes: &ChangedNames, name: &str) -> bool {
    let mut words = name.split(' ');
    let (kind, first, second) = (words.next().unwrap(), words.next().unwrap(), words.next());
    let digest = || second.unwrap().parse::<Digest>().unwrap();
    let repository = || changes.repositories.iter().find(|(name, _)| name.as_str() == first).map(|(_, one)| one);
    match kind {
        "blob" => changes.blobs.contains(&first.parse().unwrap()),
        "file" => changes.named.contains(first),
        "upload" => changes.uploads.iter().any(|id| id.to_string() == first),
        _ if repository().is_some_and(|one| one.itself) => true,
        "link" => repository().is_some_and(|one| one.blobs.contains(&digest())),
        "manifest" => repository().is_some_and(|one| one.manifests.contains(&digest())),
        "tag" => repository().is_some_and(|one| one.tags.iter().any(|tag| Some(tag.as_str()) == second)),
        _ => false,
    }
}

/// Whether a report says of a name that it may be missing or different.
fn is_told(report: &SalvageReport, name: &str) -> bool {
    named(&report.cut, name)
        || named(&report.gone, name)
        || report.recovered.iter().any(|digest| blob(digest) == name)
        || report.unnamed > 0 && name.contains("sha512")
        || damaged(report).iter().any(|digest| blob(digest) == name)
}

/// The blobs that a report says are damaged, as far as it names them.
fn damaged(report: &SalvageReport) -> Vec<Digest> {
    let digest = |finding: &Finding| match finding {
        Finding::Blob { digest, .. } => *digest,
        _ => None,
    };
    report.damaged.iter().filter_map(digest).collect()
}

/// Whether a step made commits that could not be read, or may have.
fn is_unread(report: &SalvageReport, step: &Done) -> bool {
    let meets = |range: &std::ops::RangeInclusive<Lsn>| step.after < *range.end() && step.until >= *range.start();
    report.unread.iter().any(meets) || report.may_be_more && step.until > report.last
}

/// Compares what a salvaged store has with what was acknowledged: whatever is missing or different must have been told.
pub fn check_told(made: &Made, report: &SalvageReport, seen: &Model, context: &str) {
    let excused: BTreeSet<String> = made
        .history
        .windows(2)
        .filter(|steps| is_unread(report, &steps[1]))
        .flat_map(|steps| differing(&steps[0].model, &steps[1].model))
        .collect();
    for name in differing(made.last(), seen) {
        // The contents of a repository that is gone, or is back, go with it.
        let of_repository = name.split(' ').nth(1).map(|repository| format!("repository {repository}"));
        let is_excused = excused.contains(&name)
            || of_repository.is_some_and(|one| excused.contains(&one) && !name.starts_with("repository"));
        let values = (entities(made.last()).get(&name).cloned(), entities(seen).get(&name).cloned());
        assert!(is_told(report, &name) || is_excused, "{context}: nobody was told of {name}: {values:?}\n{report:#?}");
    }
}

/// Pushes again what is damaged, which must have been told, and observes the store: nothing may be wrong with it.
/// `None` where frames of sound content are damaged, so that not all can be seen.
pub fn heal(store: &Store, made: &Made, report: &SalvageReport, hit: &[PathBuf], context: &str) -> Option<Model> {
    let known: BTreeMap<&Digest, &Vec<u8>> = made.history.iter().flat_map(|done| &done.model.blobs).collect();
    // A file that is lost is told as a segment that is missing, whatever it was.
    let is_listed = |path: &PathBuf| {
        let names_file =
            |error: &Error| matches!(error, Error::Corrupt { file, .. } if file.file_stem() == path.file_stem());
        report.damage.iter().any(names_file)
    };
    // So that damage to content alone heals, too.
    store.scrub(&ScrubOptions::new(), |_| ControlFlow::Continue(())).unwrap();
    let unknown = report.damaged.iter().filter(|one| matches!(one, Finding::Blob { digest: None, .. })).count();
    let mut unnamed = 0;
    for (digest, content) in known {
        if !store.exists(digest).unwrap() {
            continue;
        }
        let Err(error) = store.get(digest).and_then(|blob| blob.bytes()) else { continue };
        let Error::Corrupt { file, .. } = &error else { panic!("{context}: {error}") };
        if !damaged(report).contains(digest) {
            // Damage to content alone, in a file that recovery did not need, is what a scrub finds.
            let is_hit = hit.iter().any(|hit| hit.file_stem() == file.file_stem());
            let is_alone = is_hit && !is_listed(file);
            unnamed += usize::from(!is_alone);
        }
        store.put(content, digest).unwrap();
    }
    assert!(unnamed <= unknown, "{context}: {unnamed} blobs are damaged that were not told\n{report:#?}");
    let findings = store.verify(|_| {}).unwrap().findings;
    // What stands in front of content comes back with no push where the content is sound, and says which SHA-512 it is.
    let is_frame = |finding: &Finding| matches!(finding, Finding::Segment { .. } | Finding::Blob { digest: None, .. });
    assert!(findings.iter().all(is_frame), "{context}: {findings:#?}\n{report:#?}");
    findings.is_empty().then(|| observe(store))
}
