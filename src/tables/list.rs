//! `runs/LIST`: which runs and which log files make up the store.
//!
//! It is replaced as a whole: a new file is written and synced, renamed over the old one, and the directory is synced.
//! That rename is the moment at which a fold, a merge, a new log file or a recovery takes effect.
//!
//! ```text
//! magic 8 | version u32 | reserved (0) u32 | store 16 | generation u64 | folded u64 | durable u64 | next_file u64 |
//! orphan_floor u64 | session 16 | open_time u64 (ms) |
//! logs u32 | for each: file u64 | first_lsn u64 | sealed u8 | length u64 | last u64 |
//! runs u32 | for each, those of a domain newest first: file u64 | where in it u64 | level u8 | key domain u32 |
//!            entries u64 | tombstones u64 | lsn_min u64 | lsn_max u64 | length u64 |
//! unread u32 | for each: key domain u32 | from u64 | files u64 | logs u32 | for each, as above: log file |
//! crc u32
//! ```
//!
//! Where the store is encrypted, so is the list, with the default domain's key:
//!
//! ```text
//! magic 8 | version u32 (2) | key u32 | generation u64 | salt 32 | encrypted, with the above as associated data:
//! [ generation of the keys u64 | all from `store` on, and for each run its key u16 ] | tag 16
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock;
use crate::envelope::{KeyNumber, Keyring, Nonce, Purpose};
use crate::error::{Damage, Error, Result};
use crate::id::{DomainId, FileId, Lsn, SessionId, StoreId};
use crate::random::random;
use crate::vfs::{Directory, File, OpenMode, Vfs};
use crate::wire::{Fields, PutFields, crc32c, index};

const MAGIC: [u8; 8] = *b"SRlist\0\0";
const VERSION: u32 = 1;
const VERSION_SEALED: u32 = 2;
const NAME: &str = "LIST";
const TEMPORARY: &str = "LIST.tmp";

/// So many ids at most lie between the orphan floor and the next id.
pub(crate) const MAX_SEARCHED: u64 = 1 << 28;

/// So many log files are kept at most for who reads events: each process that writes begins one.
const MAX_HISTORY: usize = 64;

/// A log file whose facts are not all in runs, or that is kept for readers of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEntry {
    pub(crate) id: FileId,
    pub(crate) first_lsn: Lsn,
    /// How far it reaches, in bytes and in LSNs; none while it is written.
    pub(crate) sealed: Option<(u64, Lsn)>,
}

impl LogEntry {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.0);
        out.put_u64(self.first_lsn.0);
        out.put_u8(u8::from(self.sealed.is_some()));
        let (len, last) = self.sealed.unwrap_or_default();
        out.put_u64(len);
        out.put_u64(last.0);
    }

    fn parse(fields: &mut Fields<'_>) -> Option<Self> {
        let (id, first_lsn) = (FileId(fields.u64()?), Lsn(fields.u64()?));
        let is_sealed = fields.u8()? == 1;
        let extent = (fields.u64()?, Lsn(fields.u64()?));
        Some(Self { id, first_lsn, sealed: is_sealed.then_some(extent) })
    }

    /// Whether it has facts that runs do not have, which reach up to `folded`.
    pub(crate) fn is_needed(&self, folded: Lsn) -> bool {
        self.sealed.is_none_or(|(_, last)| last > folded)
    }
}

/// Which run it is: where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RunId {
    pub(crate) file: FileId,
    /// Where in the file it begins.
    pub(crate) at: u64,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunMeta {
    pub(crate) id: RunId,
    pub(crate) level: u8,
    /// The key domain of its facts.
    pub(crate) domain: DomainId,
    /// The number of the key that it is encrypted with; 0 for none.
    pub(crate) key: KeyNumber,
    pub(crate) entries: u64,
    /// How many of those say that something is gone.
    pub(crate) tombstones: u64,
    pub(crate) lsn_min: Lsn,
    pub(crate) lsn_max: Lsn,
    pub(crate) len: u64,
}

/// A domain that was [locked](crate::store::locked) when the store was opened, and has been since: what its records say
/// from an LSN on, its runs may not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) domain: DomainId,
    /// Its runs have its facts up to this LSN.
    pub(crate) from: Lsn,
    /// No file of it has this id, or a higher one.
    pub(crate) files: FileId,
    /// The log files that the list named then, oldest first, all sealed: nothing of the domain came later.
    pub(crate) logs: Vec<LogEntry>,
}

impl Unread {
    fn is_sane(&self) -> bool {
        self.domain != DomainId::DEFAULT && self.from.0 < 1 << 60 && self.files.0 <= FileId::MAX
    }
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RunList {
    pub(crate) store: StoreId,
    /// How often the list was replaced.
    pub(crate) generation: u64,
    /// All facts up to this LSN are in the runs.
    pub(crate) folded: Lsn,
    /// The log reaches at least this LSN.
    pub(crate) durable: Lsn,
    /// No file had this id, or a higher one, when the list was written.
    pub(crate) next_file: FileId,
    /// Only files from this id on may be such that nothing refers to them.
    pub(crate) orphan_floor: FileId,
    /// The session that wrote the list.
    pub(crate) session: SessionId,
    /// How long the store has been open in all, in milliseconds.
    pub(crate) open_time_ms: u64,
    /// Oldest first.
    pub(crate) logs: Vec<LogEntry>,
    /// Those of each domain newest first.
    pub(crate) runs: Vec<RunMeta>,
    /// What of locked domains is to be read when they are unlocked.
    pub(crate) unread: Vec<Unread>,
}

impl RunList {
    /// The list of a store without content.
    pub(crate) fn empty(store: StoreId) -> Self {
        Self {
            store,
            generation: 0,
            folded: Lsn::ZERO,
            durable: Lsn::ZERO,
            next_file: FileId(1),
            orphan_floor: FileId(1),
            session: SessionId([0; 16]),
            open_time_ms: 0,
            logs: Vec::new(),
            runs: Vec::new(),
            unread: Vec::new(),
        }
    }

    /// Log files below this one may have something of a locked domain in them.
    pub(crate) fn withheld(&self) -> FileId {
        self.unread.iter().map(|unread| unread.files).max().unwrap_or_default()
    }

    /// Whether it names a log file.
    pub(crate) fn names_log(&self, id: FileId) -> bool {
        let unread = self.unread.iter().flat_map(|unread| &unread.logs);
        self.logs.iter().chain(unread).any(|log| log.id == id)
    }

    /// A log file begins, with this LSN. The one before is [sealed](Self::seal_last).
    pub(crate) fn begin_log(&mut self, id: FileId, first_lsn: Lsn) {
        self.logs.push(LogEntry { id, first_lsn, sealed: None });
    }

    /// All facts up to an LSN are in the runs, which are all that is left: there is no log.
    pub(crate) fn without_log(&mut self, last: Lsn, orphan_floor: FileId, open_time_ms: u64) {
        (self.folded, self.durable) = (last, last);
        (self.orphan_floor, self.open_time_ms) = (orphan_floor, open_time_ms);
        self.logs.clear();
    }

    /// Notes how far the last log file reaches, if it is open and that is known; says which it is and its length.
    pub(crate) fn seal_last(&mut self, end: Option<(u64, Lsn)>) -> Option<(FileId, u64)> {
        let entry = self.logs.last_mut().filter(|entry| entry.sealed.is_none())?;
        entry.sealed = end;
        end.map(|(len, _)| (entry.id, len))
    }

    /// The log ends here: the last file reaches so far, and what nothing was written to is none of it. All up to an LSN
    /// is durable, and no file has the next id, or a higher one. Returns the file that may still be written to.
    pub(crate) fn end(&mut self, end: Option<(u64, Lsn)>, durable: Lsn, next_file: FileId) -> Option<FileId> {
        let being_written = self.logs.last().filter(|log| log.sealed.is_none()).map(|log| log.id);
        self.seal_last(end);
        self.logs.retain(|log| log.sealed.is_some_and(|(_, last)| last >= log.first_lsn));
        (self.durable, self.next_file) = (durable.max(self.durable), next_file.max(self.next_file));
        being_written
    }

    /// How many log files have facts that runs do not have.
    pub(crate) fn unfolded_logs(&self) -> u64 {
        self.logs.iter().filter(|log| log.is_needed(self.folded)).count() as u64
    }

    /// Drops the log files whose facts the runs all have, except for the newest of those, up to `history` bytes, and
    /// says which.
    pub(crate) fn drop_folded_logs(&mut self, history: u64) -> Vec<FileId> {
        let (mut files, mut bytes) = (0, 0u64);
        let is_kept = |log: &&LogEntry| {
            if log.is_needed(self.folded) {
                return true;
            }
            files += 1;
            bytes = bytes.saturating_add(log.sealed.map_or(0, |(len, _)| len));
            files <= MAX_HISTORY && bytes <= history
        };
        let keep = self.logs.iter().rev().take_while(is_kept).count();
        let dropped: Vec<FileId> = self.logs.drain(..self.logs.len() - keep).map(|log| log.id).collect();
        // Should a crash come before they are removed, the next opening has to find them.
        self.orphan_floor = dropped.iter().copied().fold(self.orphan_floor, FileId::min);
        dropped
    }

    /// Encodes the list, encrypted if the store is.
    pub(crate) fn encode(&self, keys: &Keyring) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        out.put(&MAGIC);
        if !keys.is_encrypted() {
            out.put_u32(VERSION);
            out.put_u32(0);
            self.put_body(&mut out, false);
            out.put_u32(crc32c(&out));
            return Ok(out);
        }
        let mut body = Vec::new();
        body.put_u64(keys.generation);
        self.put_body(&mut body, true);
        Self::seal(keys, self.generation, random()?, body)
    }

    fn seal(keys: &Keyring, generation: u64, salt: [u8; 32], mut body: Vec<u8>) -> Result<Vec<u8>> {
        let key = keys.in_use(DomainId::DEFAULT)?;
        let mut out = MAGIC.to_vec();
        out.put_u32(VERSION_SEALED);
        out.put_u32(key.into());
        out.put_u64(generation);
        out.put(&salt);
        let cipher = keys.cipher(DomainId::DEFAULT, key, &salt, Purpose::List, FileId(0));
        cipher.ok_or(Error::DomainShredded { domain: 0 })?.seal_vec(Nonce::ONLY, &out, &mut body)?;
        out.put(&body);
        Ok(out)
    }

    /// A list with this in it, whatever it is.
    #[cfg(feature = "fuzzing")]
    pub(crate) fn sealed(keys: &Keyring, body: &[u8]) -> Vec<u8> {
        Self::seal(keys, 1, [0; 32], body.to_vec()).unwrap_or_default()
    }

    fn put_body(&self, out: &mut Vec<u8>, with_keys: bool) {
        out.put(&self.store.0);
        for number in [self.generation, self.folded.0, self.durable.0, self.next_file.0, self.orphan_floor.0] {
            out.put_u64(number);
        }
        out.put(&self.session.0);
        out.put_u64(self.open_time_ms);
        out.put_len32(self.logs.len());
        self.logs.iter().for_each(|log| log.put(out));
        out.put_len32(self.runs.len());
        for run in &self.runs {
            out.put_u64(run.id.file.0);
            out.put_u64(run.id.at);
            out.put_u8(run.level);
            out.put_u32(run.domain.0);
            if with_keys {
                out.put_u16(run.key);
            }
            for number in [run.entries, run.tombstones, run.lsn_min.0, run.lsn_max.0, run.len] {
                out.put_u64(number);
            }
        }
        out.put_len32(self.unread.len());
        for Unread { domain, from, files, logs } in &self.unread {
            out.put_u32(domain.0);
            out.put_u64(from.0);
            out.put_u64(files.0);
            out.put_len32(logs.len());
            logs.iter().for_each(|log| log.put(out));
        }
    }

    /// Parses the file's content.
    pub(crate) fn parse(bytes: &[u8], keys: &Keyring) -> Result<Self, Damage> {
        let mut fields = Fields(bytes);
        let magic: Option<[u8; 8]> = fields.array();
        if magic.ok_or(Damage::Truncated)? != MAGIC {
            return Err(Damage::Magic);
        }
        let invalid = Damage::Invalid("list of runs");
        match fields.u32().ok_or(Damage::Truncated)? {
            VERSION_SEALED => {
                let body = Self::open(bytes, keys)?;
                let mut fields = Fields(&body);
                // Older keys than those that the list was written under: somebody put back an older `FORMAT`.
                if fields.u64().ok_or(Damage::Truncated)? > keys.generation {
                    return Err(Damage::Invalid("generation of the keys"));
                }
                Self::parse_body(fields, true).ok_or(invalid)
            }
            VERSION if !keys.accepts_plain => Err(Damage::NotSealed),
            _ => {
                let (body, check) = bytes.split_last_chunk().ok_or(Damage::Truncated)?;
                let (expected, found) = (u32::from_le_bytes(*check), crc32c(body));
                if expected != found {
                    return Err(Damage::Checksum { expected, found });
                }
                let mut fields = Fields(body);
                fields.bytes(MAGIC.len());
                let is_known = fields.u32() == Some(VERSION) && fields.u32().is_some();
                is_known.then(|| Self::parse_body(fields, false)).flatten().ok_or(invalid)
            }
        }
    }

    /// Decrypts the body of an encrypted list.
    fn open(bytes: &[u8], keys: &Keyring) -> Result<Vec<u8>, Damage> {
        let (head, sealed) = bytes.split_at_checked(SEALED_HEAD).ok_or(Damage::Truncated)?;
        let mut fields = Fields(head);
        fields.bytes(MAGIC.len() + 4);
        let key = fields.u32().and_then(|key| KeyNumber::try_from(key).ok());
        let salt = fields.u64().and_then(|_| fields.array());
        let (key, salt) = key.zip(salt).ok_or(Damage::Truncated)?;
        let cipher = keys.cipher(DomainId::DEFAULT, key, &salt, Purpose::List, FileId(0));
        let cipher = cipher.ok_or(Damage::Invalid("key number"))?;
        cipher.open_vec(Nonce::ONLY, head, sealed).map_err(|_| Damage::Seal)
    }

    /// The names of the files of lists.
    pub(crate) const NAMES: [&str; 2] = [NAME, TEMPORARY];

    /// Whether a list was replaced at least once, as far as can be told without keys; none of that is verified.
    ///
    /// # Errors
    /// What keeps the file from being read, if it is there.
    pub(crate) fn is_of_a_store(vfs: &dyn Vfs, dir: &Path) -> Result<bool> {
        let bytes = match read(vfs, &dir.join(NAME)) {
            Err(Error::Corrupt { .. }) => return Ok(false),
            other => other?,
        };
        let generation = || {
            let mut fields = Fields(&bytes);
            (fields.array()? == MAGIC).then_some(())?;
            let at = if fields.u32()? == VERSION_SEALED { 4 } else { 4 + 16 };
            fields.bytes(at)?;
            fields.u64()
        };
        Ok(generation().is_some_and(|generation| generation > 0))
    }

    fn parse_body(mut fields: Fields<'_>, with_keys: bool) -> Option<Self> {
        let store = StoreId(fields.array()?);
        let mut number = || fields.u64();
        let (generation, folded, durable) = (number()?, Lsn(number()?), Lsn(number()?));
        let (next_file, orphan_floor) = (FileId(number()?), FileId(number()?));
        let session = SessionId(fields.array()?);
        let open_time_ms = fields.u64().filter(|time| *time <= clock::MAX)?;
        let mut logs = Vec::new();
        for _ in 0..fields.u32()? {
            logs.push(LogEntry::parse(&mut fields)?);
        }
        let mut runs = Vec::new();
        for _ in 0..fields.u32()? {
            let id = RunId { file: FileId(fields.u64()?), at: fields.u64()? };
            let (level, domain) = (fields.u8()?, DomainId(fields.u32()?));
            let key = if with_keys { fields.u16()? } else { 0 };
            let mut number = || fields.u64();
            let (entries, tombstones) = (number()?, number()?);
            let (lsn_min, lsn_max, len) = (Lsn(number()?), Lsn(number()?), number()?);
            runs.push(RunMeta { id, level, domain, key, entries, tombstones, lsn_min, lsn_max, len });
        }
        let mut unread = Vec::new();
        for _ in 0..fields.u32()? {
            let (domain, from) = (DomainId(fields.u32()?), Lsn(fields.u64()?));
            let files = FileId(fields.u64()?);
            let mut logs = Vec::new();
            for _ in 0..fields.u32()? {
                logs.push(LogEntry::parse(&mut fields).filter(|log| log.sealed.is_some())?);
            }
            unread.push(Unread { domain, from, files, logs });
        }
        fields.end()?;
        let is_open_last = logs.iter().rev().skip(1).all(|log: &LogEntry| log.sealed.is_some());
        // What a counter can't have reached would make others overflow, or a search for orphans never end.
        let is_sane = [generation, folded.0, durable.0].iter().all(|number| *number < 1 << 60)
            && next_file.0 <= FileId::MAX
            && next_file.0.checked_sub(orphan_floor.0)? <= MAX_SEARCHED
            && unread.iter().all(Unread::is_sane)
            && runs.iter().all(|run: &RunMeta| run.id.at.checked_add(run.len).is_some_and(|end| end < 1 << 60));
        (is_open_last && is_sane).then_some(())?;
        let head = Self { store, generation, folded, durable, next_file, orphan_floor, session, ..Self::empty(store) };
        Some(Self { open_time_ms, logs, runs, unread, ..head })
    }

    /// Where the list lies in a directory.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// Reads the list in a directory.
    pub(crate) fn load(vfs: &dyn Vfs, dir: &Path, keys: &Keyring) -> Result<Self> {
        Self::open_bytes(&Self::read_bytes(vfs, dir)?, dir, keys)
    }

    /// Reads what is in the list's file, whatever it is.
    pub(crate) fn read_bytes(vfs: &dyn Vfs, dir: &Path) -> Result<Vec<u8>> {
        read(vfs, &dir.join(NAME))
    }

    /// The list that was read from a directory.
    pub(crate) fn open_bytes(bytes: &[u8], dir: &Path, keys: &Keyring) -> Result<Self> {
        Self::parse(bytes, keys).map_err(|damage| Error::corrupt(&dir.join(NAME), 0, damage))
    }

    /// Writes the list beside the one that counts. The caller syncs the file.
    pub(crate) fn write(&self, vfs: &dyn Vfs, dir: &Path, keys: &Keyring) -> Result<Arc<dyn File>> {
        let encoded = self.encode(keys)?;
        let temporary = dir.join(TEMPORARY);
        match vfs.remove(&temporary) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &temporary)(error));
            }
            _ => {}
        }
        let file = vfs.open(&temporary, OpenMode::CreateNew).map_err(Error::io("create", &temporary))?;
        file.write_all_at(&encoded, 0).map_err(Error::io("write", &temporary))?;
        Ok(file)
    }

    /// Makes the list that was written to a directory the one that counts, durably.
    ///
    /// # Errors
    /// A rename that fails has not taken place, unless the disk failed in it.
    pub(crate) fn replace(vfs: &dyn Vfs, dir: &Path, open: &dyn Directory) -> Result<()> {
        let (path, temporary) = (dir.join(NAME), dir.join(TEMPORARY));
        vfs.rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
        open.sync().map_err(Error::io("sync", dir))
    }
}

/// Where what is encrypted begins.
const SEALED_HEAD: usize = 8 + 4 + 4 + 8 + 32;

fn read(vfs: &dyn Vfs, path: &Path) -> Result<Vec<u8>> {
    let file = vfs.open(path, OpenMode::Read).map_err(Error::opening(path))?;
    let len = file.len().map_err(Error::io("read the length of", path))?;
    let mut bytes = vec![0; index(len.min(64 << 20))];
    file.read_exact_at(&mut bytes, 0).map_err(Error::io("read", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(id: u64, level: u8, entries: u64) -> RunMeta {
        RunMeta {
            id: RunId { file: FileId(id), at: 4096 },
            level,
            domain: DomainId(0),
            key: 0,
            entries,
            tombstones: 0,
            lsn_min: Lsn(id),
            lsn_max: Lsn(id),
            len: 1,
        }
    }

    #[test]
    fn the_list_round_trips_and_no_flipped_bit_does() {
        let mut list = RunList::empty(StoreId([1; 16]));
        list.logs = vec![
            LogEntry { id: FileId(3), first_lsn: Lsn(7), sealed: Some((512, Lsn(9))) },
            LogEntry { id: FileId(4), first_lsn: Lsn(10), sealed: None },
        ];
        list.runs = vec![run(9, 0, 5), run(2, 1, 50)];
        let (domain, from, files, logs) = (DomainId(1), Lsn(6), FileId(4), list.logs[..1].to_vec());
        list.unread = vec![Unread { domain, from, files, logs }];
        let keys = Keyring::plain(StoreId([1; 16]));
        let bytes = list.encode(&keys).unwrap();
        assert_eq!(RunList::parse(&bytes, &keys).unwrap(), list);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(RunList::parse(&flipped, &keys).is_err(), "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert!(RunList::parse(&bytes[..len], &keys).is_err());
        }
    }

    #[test]
    fn the_newest_folded_log_files_are_kept_as_history() {
        let mut list = RunList::empty(StoreId([1; 16]));
        list.folded = Lsn(100);
        let sealed = |n: u64| LogEntry { id: FileId(n), first_lsn: Lsn(n), sealed: Some((1000, Lsn(n))) };
        list.logs = (1..=100).map(sealed).collect();
        list.logs.push(LogEntry { id: FileId(101), first_lsn: Lsn(101), sealed: None });
        let ids = |list: &RunList| list.logs.iter().map(|log| log.id.0).collect::<Vec<_>>();
        assert_eq!(list.drop_folded_logs(1 << 30).len(), 100 - MAX_HISTORY);
        assert_eq!(ids(&list).len(), MAX_HISTORY + 1);
        list.drop_folded_logs(2999);
        assert_eq!(ids(&list), [99, 100, 101]);
        list.drop_folded_logs(0);
        assert_eq!(ids(&list), [101]);
        assert_eq!(list.orphan_floor, FileId(1));
    }
}
