//! Salvage: makes a store whose log is damaged one that opens again.
//!
//! # What is kept
//! Everything up to the last commit before the first damage to a record that no run has. The store has been in that
//! state, so all invariants hold of it, and it is proven by checksums and by the unbroken order of LSNs. Every later
//! commit is **cut**, including those that can be read. Their facts are absolute: counts, places of frames and entries
//! of lists that followed from the facts of the damaged record. Applied without that record they would give a state
//! that never was, with manifests that hold missing blobs and tags that name nothing; finding and removing those would
//! be guessing. What the cut commits changed is reported by name instead ([`SalvageReport::cut`]) where they can be
//! read, and otherwise by their LSNs ([`SalvageReport::unread`]).
//!
//! Damage to a record whose facts runs have loses nothing, and is skipped as in every opening.
//!
//! # What follows for content
//! The files on disk are as the last commit left them, not as the last kept commit did. So for each blob the salvage
//! looks whether its content is where its fact says:
//!
//! | | |
//! |---|---|
//! | it was moved since (compaction, a new key) | a copy that has the digest is found: the blob is placed there |
//! | its file is gone, and no copy is found | a cut commit removed it, after everything that held it: both are removed ([`release`]) |
//! | it is damaged, or its log file is lost | it is flagged, as by a scrub: a push repairs it |
//! | it was stored in a commit that is cut | its digest proves it: it is kept, and nothing references it |
//! | an upload's segment is gone, or complete | the upload had ended: it is removed |
//!
//! # How it is done
//! 1. The log is read as recovery reads it, up to the damage, and [surveyed](crate::log::survey) behind that ([`cut`]).
//! 2. The facts of a store that is open for reading up to the damage are changed in memory, as commits would change
//!    them, by the same functions ([`content`], [`release`]). Nothing on disk has changed; the report is complete.
//! 3. The log files and segments that are cut are copied aside.
//! 4. The facts are written as runs, and the list is replaced by one that names those runs and no log files. That
//!    rename is the moment of the salvage: before it, the store is as it was.
//! 5. Files that nothing refers to any more are removed by the next opening, as after a crash: by the list's orphan
//!    floor.
//!
//! # Invariants kept here
//! - No LSN is given out again, not even that of a commit that could not be read: clients that follow events from a
//!   position after the last kept commit are told that there is a gap, and ids of repositories stay unique.
//! - No file id that is known to have been used is given out again.
//! - Content is kept only where it was read, and has its digest.
//! - The report is complete before anything is changed.

mod content;
mod cut;
mod release;
mod report;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use report::{ChangedInRepository, ChangedNames, SalvageReport};

use crate::check::Finding;
use crate::clock::StoreClock;
use crate::envelope::KeyNumber;
use crate::envelope::Keys;
use crate::error::{Error, Result};
use crate::facts::{Family, Lookup, Reader, SegmentFact, SegmentKind};
use crate::files::{Files, Layout, open_dir, remove_if_there};
use crate::id::{DomainId, FileId, Lsn, RepositoryId};
use crate::log::recovery::{Replayed, replay};
use crate::store::open::{make_dir, recover, sync_dir, take_lock};
use crate::store::orphans::unlisted_files;
use crate::store::salvage::content::OnDisk;
use crate::store::salvage::cut::Cut;
use crate::store::{Inner, Options, Recovery, format};
use crate::tables::{MAX_SEARCHED, RunList};
use crate::transaction::{Apply, Context, Op, Placing, Request, resolve};
use crate::vfs::{OpenMode, Vfs};

/// A planned salvage: what was found, and what would be done.
#[derive(Debug)]
#[must_use]
pub struct Salvage {
    report: SalvageReport,
    keeps_copies: bool,
    /// None where the log is not damaged.
    plan: Option<Plan>,
}

/// A salvage that is planned.
#[derive(Debug)]
struct Plan {
    /// The store as it will be, in memory.
    inner: Inner,
    /// What is to be copied aside.
    copies: Vec<PathBuf>,
    orphan_floor: FileId,
    clock: StoreClock,
}

impl Options {
    /// Plans a salvage of a store that does not open because records in its log are damaged that no run has. Changes
    /// nothing: see [`Salvage::report`], then [`Salvage::carry_out`]. Nobody else can open the store meanwhile.
    ///
    /// A salvage keeps everything up to the last commit before the damage, and content of later commits that can be
    /// read, which then need not be pushed again. What may be missing after it is reported by name or, where commits
    /// can't be read, by their LSNs. An undamaged backup is worth more: restore that first, if there is one.
    ///
    /// ```
    /// use strongroom::{Algorithm, Error, Options};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let dir = dir.path().join("store");
    /// # let store = Options::new().create(true).open(&dir)?;
    /// # let kept = store.put("kept", Algorithm::Sha256)?.digest;
    /// # store.named().set("kept", &kept, strongroom::PutNamed::new())?;
    /// # let cut = store.put("cut", Algorithm::Sha256)?;
    /// # store.close()?;
    /// # let shard = std::fs::read_dir(dir.join("log"))?.next().unwrap()?.path();
    /// # let log = std::fs::read_dir(shard)?.next().unwrap()?.path();
    /// # let mut bytes = std::fs::read(&log)?;
    /// # let at = bytes.windows(3).rposition(|bytes| bytes == b"cut").unwrap();
    /// # bytes[at + 64] ^= 1;
    /// # std::fs::write(&log, bytes)?;
    /// assert!(matches!(Options::new().open(&dir), Err(Error::Corrupt { .. })));
    /// let salvage = Options::new().salvage(&dir)?;
    /// println!("commits up to {} are kept", salvage.report().kept);
    /// for name in &salvage.report().cut.named {
    ///     println!("file {name} may be missing");
    /// }
    /// let report = salvage.carry_out()?;
    /// println!("copies of what was cut: {}", report.copies.display());
    /// assert_eq!(Options::new().open(&dir)?.named().stat("kept")?.digest, kept);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`open`](Self::open). [`Key`](Error::Key) where the keys of a key domain can't be unwrapped: it needs those
    /// of all, since what a [locked](crate::Store::locked_domains) one has in the log could be neither kept nor
    /// reported. [`Corrupt`](Error::Corrupt) where something else is damaged that opening needs: `FORMAT`, the list, or
    /// runs. [`Io`](Error::Io) where something can't be read for another reason than damage: copy what can still be
    /// read from the disk, then salvage the copy.
    pub fn salvage(self, dir: impl AsRef<Path>) -> Result<Salvage> {
        Salvage::plan(self, dir.as_ref())
    }
}

impl Salvage {
    fn plan(options: Options, root: &Path) -> Result<Self> {
        let (layout, vfs) = (Layout::new(root), Arc::clone(&options.vfs));
        let options = Options { create: false, ..options };
        let lock = take_lock(&options, &layout)?;
        let keyring = format::load(&*vfs, &layout.format(), options.key_provider.as_deref())?;
        let list = RunList::load(&*vfs, &layout.runs(), &keyring)?;
        let files = Files::new(
            (vfs, Box::new(())),
            layout.clone(),
            Keys::new(keyring.clone()),
            list.next_file,
            options.files(),
        );
        let Replayed { stop, open_time, .. } = replay(&files, &list)?;
        let Some(stop) = stop else {
            return Ok(Self { report: SalvageReport::default(), keeps_copies: false, plan: None });
        };
        let (clock, open_time) = (options.clock.clone(), open_time.max(list.open_time_ms));
        let inner = recover(options.recovery(Recovery::ReadOnlyUpToDamage), layout, keyring, lock)?;
        // What a locked domain has in the log could be neither kept nor reported.
        if let Some((_, why)) = inner.files.keys().locked().next() {
            return Err(why.clone());
        }
        let mut names = BTreeMap::new();
        for snapshot in inner.tables.snapshot().each_domain() {
            for repository in snapshot.repositories()? {
                let repository = repository?;
                names.insert(repository.id, repository.name);
            }
        }
        let kept = inner.tables.visible();
        let cut = Cut::read(&inner.files, &list, &stop, kept, &mut names)?;
        let copies = inner.files.layout().salvage().join(list.generation.to_string());
        let report = SalvageReport {
            damage: cut.damage.clone(),
            kept,
            last: cut.last,
            may_be_more: cut.may_be_more,
            unread: cut.unread(kept),
            cut: cut.changes.clone(),
            copies,
            ..SalvageReport::default()
        };
        let clock = StoreClock::new(clock, open_time.max(cut.open_time));
        Planner { inner, cut, names, report, clock }.plan(&list)
    }

    /// What is kept, and what may be missing afterwards.
    pub fn report(&self) -> &SalvageReport {
        &self.report
    }

    /// Whether files that are cut are copied aside first; yes by default. The report says how much space that takes.
    /// The store neither reads nor removes the copies, nor re-encrypts them when keys change.
    pub fn keep_copies(mut self, keep: bool) -> Self {
        self.keeps_copies = keep && self.plan.is_some();
        self
    }

    /// Carries the salvage out: the store opens then. Where the log is not damaged this does nothing.
    ///
    /// # Errors
    /// [`Error::Full`] and the like: the store is as it was. [`Error::Poisoned`], which says that a sync failed: the
    /// store is as it was, or salvaged.
    pub fn carry_out(mut self) -> Result<SalvageReport> {
        if let Some(plan) = self.plan.take() {
            let files = &plan.inner.files;
            files.lift_damage();
            if self.keeps_copies {
                copy(files.vfs(), files.layout(), &plan.copies, &self.report.copies)?;
            } else {
                self.report.copied_bytes = 0;
            }
            plan.replace_list()?;
        }
        Ok(self.report)
    }
}

/// Copies files to a directory below that of copies, durably. What an earlier salvage has left there, which did not
/// come to its end, is replaced.
fn copy(vfs: &dyn Vfs, layout: &Layout, files: &[PathBuf], to: &Path) -> Result<()> {
    for dir in [&layout.salvage(), to] {
        make_dir(vfs, dir)?;
        // Also where it was there: whoever created it may have lost power since.
        sync_dir(vfs, dir.parent().unwrap_or(layout.root()))?;
    }
    let dir = open_dir(vfs, to)?;
    for path in files {
        let target = to.join(path.file_name().unwrap_or_default());
        remove_if_there(vfs, &target)?;
        let from = vfs.open(path, OpenMode::Read).map_err(Error::opening(path))?;
        let file = vfs.open(&target, OpenMode::CreateNew).map_err(Error::io("create", &target))?;
        let len = from.len().map_err(Error::io("read the length of", path))?;
        let mut at = 0;
        while at < len {
            let mut piece = vec![0; usize::try_from((len - at).min(1 << 20)).unwrap_or_default()];
            from.read_exact_at(&mut piece, at).map_err(Error::io("read", path))?;
            file.write_all_at(&piece, at).map_err(Error::io("write", &target))?;
            at += piece.len() as u64;
        }
        file.sync().map_err(Error::io("sync", &target))?;
    }
    dir.sync().map_err(Error::io("sync", to))
}

impl Plan {
    /// Writes the facts as runs, and replaces the list.
    fn replace_list(&self) -> Result<()> {
        let tables = &self.inner.tables;
        let last = tables.visible();
        tables.set_durable(last);
        let open_time = self.clock.open_time();
        tables.fold_into(&*self.inner.log, |list| list.without_log(last, self.orphan_floor, open_time))
    }
}

/// A salvage that is being planned, over a store that is open for reading up to the damage.
struct Planner {
    inner: Inner,
    cut: Cut,
    /// The names that repositories have had.
    names: BTreeMap<RepositoryId, String>,
    report: SalvageReport,
    clock: StoreClock,
}

impl Planner {
    fn plan(mut self, list: &RunList) -> Result<Salvage> {
        self.begin_behind_all()?;
        let on_disk = OnDisk::list(&self.inner)?;
        let complete = self.find_copies(&on_disk)?;
        self.release_uploads(|file| !on_disk.has(file) || complete.contains(&file))?;
        let astray = self.find_content(&on_disk, &list.logs.iter().map(|log| log.id).collect())?;
        let mut damaged = astray.damaged;
        for key in self.release(&astray.missing)? {
            damaged.insert(key, self.missing(&key)?);
        }
        let digests = self.digests_of(&damaged.keys().copied().collect())?;
        for (key, error) in damaged {
            self.flag(key)?;
            let digest = digests.get(&key).copied();
            self.report.damaged.push(Finding::Blob { digest, error });
        }
        self.keep_content()?;
        self.drop_lost_logs(&on_disk)?;
        let (copies, orphan_floor) = self.left_over(&on_disk)?;
        for path in &copies {
            let file = self.inner.files.vfs().open(path, OpenMode::Read).map_err(Error::opening(path))?;
            self.report.copied_bytes += file.len().map_err(Error::io("read the length of", path))?;
        }
        let Self { inner, report, clock, .. } = self;
        Ok(Salvage { report, keeps_copies: true, plan: Some(Plan { inner, copies, orphan_floor, clock }) })
    }

    /// Sees to it that nothing is given out again: LSNs, ids of files.
    fn begin_behind_all(&self) -> Result<()> {
        let (files, tables) = (&self.inner.files, &self.inner.tables);
        unlisted_files(files, &tables.list())?;
        files.skip_past(self.cut.last_file);
        files.skip_named(&tables.unfolded(Family::Segment));
        tables.set_visible(self.cut.end);
        Ok(())
    }

    /// Does what a commit of a domain would do, in memory only; what is placed in this log file is said to lie in one.
    fn commit(&mut self, domain: DomainId, log: FileId, request: &Request) -> Result<Vec<Op>> {
        let tables = &self.inner.tables;
        let placing = InMemory { lsn: tables.visible().next(), log };
        let context = Context {
            domain,
            facts: &tables.snapshot_of(domain),
            placing: &placing,
            now: self.clock.now(),
            retention: self.inner.options.log().retention,
        };
        let resolved = resolve(request, &context)?;
        tables.insert(resolved.facts.into_iter().map(|fact| (placing.lsn, fact)));
        tables.set_visible(placing.lsn);
        self.report.gone.note(&resolved.ops, &mut self.names);
        Ok(resolved.ops)
    }

    fn apply(&mut self, domain: DomainId, log: FileId, apply: Box<dyn Apply>) -> Result<Vec<Op>> {
        self.commit(domain, log, &Request::Apply(apply))
    }

    /// Keeps content that was stored in commits that are cut.
    fn keep_content(&mut self) -> Result<()> {
        for key in self.cut.copies.keys() {
            let snapshot = self.inner.tables.snapshot_of(key.domain);
            if !snapshot.domains().contains(&key.domain) || snapshot.blob_by_key(&key)?.is_some() {
                continue;
            }
            if let Some((digest, to)) = self.cut.copies.verified(&self.inner, &key)? {
                self.place(key, to)?;
                self.report.recovered.insert(digest);
            }
        }
        Ok(())
    }

    /// Drops the facts of log files that are lost, and in which nothing is said to live.
    fn drop_lost_logs(&mut self, on_disk: &OnDisk) -> Result<()> {
        let domains = self.inner.tables.snapshot().domains().to_vec();
        for domain in domains {
            let facts = self.inner.tables.snapshot_of(domain).segment_facts()?.collect::<Result<Vec<_>>>()?;
            let is_lost = |(id, segment): &&(FileId, SegmentFact)| segment.live_frames == 0 && !on_disk.has(*id);
            for (id, _) in facts.iter().filter(is_lost) {
                self.commit(domain, FileId(0), &Request::DropFile(*id))?;
            }
        }
        Ok(())
    }

    /// What is to be copied aside, and the lowest id of a file that nothing refers to any more.
    fn left_over(&self, on_disk: &OnDisk) -> Result<(Vec<PathBuf>, FileId)> {
        let (next, _) = self.inner.files.horizon();
        let (mut copies, mut floor) = (vec![RunList::path(&self.inner.files.layout().runs())], next);
        let snapshot = self.inner.tables.snapshot();
        for (id, path) in on_disk.all() {
            let segments = snapshot.segments(*id)?;
            let is_empty = |segment: &SegmentFact| segment.kind == SegmentKind::Log && segment.live_frames == 0;
            let is_left = segments.iter().all(|(_, segment)| is_empty(segment));
            if is_left {
                floor = floor.min(*id);
            }
            if self.cut.files.contains(id) || is_left && on_disk.segments.contains_key(id) {
                copies.push(path.clone());
            }
        }
        Ok((copies, floor.max(FileId(next.0.saturating_sub(MAX_SEARCHED)))))
    }
}

/// What was opened, unless there is none.
fn if_there<T>(opened: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(Error::io("open", path)),
    }
}

/// Where a commit goes that is in memory only, and places content in a log file that there is.
#[derive(Debug)]
struct InMemory {
    lsn: Lsn,
    log: FileId,
}

impl Placing for InMemory {
    fn lsn(&self) -> Lsn {
        self.lsn
    }

    fn frame(&self) -> (FileId, u64, KeyNumber) {
        (self.log, 0, 0)
    }

    /// None is listed any more.
    fn is_needed(&self, _: FileId) -> bool {
        false
    }
}
