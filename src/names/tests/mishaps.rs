//! A backend that fails, panics or hangs, wherever it does so, costs the view of names and nothing else.

use std::collections::BTreeSet;
use std::panic::panic_any;
use std::thread;

use super::*;
use crate::PutNamed;
use crate::clock::Clock;
use crate::digest::Algorithm;
use crate::names::guard::Guard;
use crate::names::memory::MemoryBackend;
use crate::store::{Maintenance, Options, Store};
use crate::vfs::SimVfs;

/// The names of all named files.
fn file_names(store: &Store) -> Vec<String> {
    store.named().iter("").map(|file| file.unwrap().name).collect()
}

/// What is asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Open,
    Watermark,
    Create,
    /// Names without a watermark.
    Fill,
    /// Names with one.
    Flush,
    Read,
    Close,
    Drop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    Error,
    Panic,
    Hang,
}

/// What is to happen, and whether it has.
#[derive(Debug)]
struct Script {
    at: Call,
    mishap: Mishap,
    /// Whether there is a view to be opened.
    is_there: bool,
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Stage {
    has_happened: bool,
    is_over: bool,
}

impl Script {
    fn new(at: Call, mishap: Mishap) -> Arc<Self> {
        Self::with(at, mishap, matches!(at, Call::Open | Call::Watermark))
    }

    /// For a view that is there already.
    fn opened(at: Call, mishap: Mishap) -> Arc<Self> {
        Self::with(at, mishap, true)
    }

    fn with(at: Call, mishap: Mishap, is_there: bool) -> Arc<Self> {
        Arc::new(Self { at, mishap, is_there, stage: Mutex::default(), changed: Condvar::new() })
    }

    fn meet(&self, call: Call) -> Result<(), Failed> {
        if call != self.at {
            return Ok(());
        }
        let mut stage = lock(&self.stage);
        stage.has_happened = true;
        self.changed.notify_all();
        match self.mishap {
            Mishap::Error => Err(Failed),
            Mishap::Panic => {
                drop(stage);
                panic_any("as the script says");
            }
            Mishap::Hang => {
                while !stage.is_over {
                    stage = self.changed.wait(stage).unwrap();
                }
                Ok(())
            }
        }
    }

    fn wait(&self) {
        let mut stage = lock(&self.stage);
        while !stage.has_happened {
            stage = self.changed.wait(stage).unwrap();
        }
    }

    fn has_happened(&self) -> bool {
        lock(&self.stage).has_happened
    }

    /// Lets go what hangs.
    fn end(&self) {
        lock(&self.stage).is_over = true;
        self.changed.notify_all();
    }
}

struct Scripted {
    script: Arc<Script>,
    names: MemoryBackend,
}

impl Backend for Scripted {
    fn write(&self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed> {
        self.script.meet(if watermark.is_some() { Call::Flush } else { Call::Fill })?;
        self.names.write(changes, watermark)
    }

    fn keys_in(&self, range: &KeyRange) -> Result<KeyList, Failed> {
        self.script.meet(Call::Read)?;
        self.names.keys_in(range)
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        self.script.meet(Call::Watermark)?;
        Ok(None)
    }

    fn close(&self) {
        let _ = self.script.meet(Call::Close);
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.script.meet(Call::Drop);
    }
}

impl Place for Arc<Script> {
    fn open(&self, keys: &Keys) -> Result<Option<Arc<dyn Backend>>, Failed> {
        self.meet(Call::Open)?;
        if self.is_there { self.create(keys).map(Some) } else { Ok(None) }
    }

    fn create(&self, _: &Keys) -> Result<Arc<dyn Backend>, Failed> {
        self.meet(Call::Create)?;
        Ok(Arc::new(Scripted { script: Arc::clone(self), names: MemoryBackend::default() }))
    }

    fn remove(&self) -> Result<(), Failed> {
        Ok(())
    }
}

const ALWAYS: Duration = Duration::from_secs(60 * 60);
const SOON: Duration = Duration::from_millis(20);

fn open(maintenance: Maintenance) -> Store {
    let options = Options::new().create(true).vfs(Arc::new(SimVfs::new())).clock(Clock::manual());
    options.maintenance(maintenance).memtable_size(4 << 10).log_file_size(64 << 10).open("/store").unwrap()
}

/// Has the store begin its view anew as the script says.
fn play(store: &Store, script: &Arc<Script>, deadlines: Deadlines) {
    let names = store.names();
    let trust = trust(7, 0, 0);
    let mut state = lock(&names.state);
    state.deadlines = deadlines;
    state.let_go();
    state.to_open = Some((Arc::new(Arc::clone(script)), Some(trust)));
    drop(state);
    names.raise();
}

/// Commits, folds, reads and lists.
fn use_it(store: &Store, pinned: &mut BTreeSet<String>, count: usize) {
    for n in pinned.len()..pinned.len() + count {
        let digest = store.put(n.to_string(), Algorithm::Sha256).unwrap().digest;
        store.named().set(&n.to_string(), &digest, PutNamed::new()).unwrap();
        pinned.insert(n.to_string());
        assert_eq!(store.get(&digest).unwrap().bytes().unwrap(), n.to_string());
        if n % 16 == 0 {
            assert!(file_names(store).iter().eq(&*pinned));
        }
    }
    store.checkpoint().unwrap();
}

/// Until the view answers, or what is to happen has.
fn until_answered(store: &Store, maintenance: Maintenance, script: &Script) {
    while store.names().list(&[DomainId::DEFAULT], NameKind::Named, None, 1).is_none() && !script.has_happened() {
        if maintenance == Maintenance::Inline {
            store.keep_names();
        }
        thread::sleep(Duration::from_millis(1));
    }
}

fn goes_on_after(call: Call, mishap: Mishap, maintenance: Maintenance) {
    let context = format!("{call:?} {mishap:?} {maintenance:?}");
    let store = open(maintenance);
    let mut pinned = BTreeSet::new();
    use_it(&store, &mut pinned, 50);
    let script = Script::new(call, mishap);
    // Only what hangs is to miss it, also on a machine that has much else to do.
    let deadline = if mishap == Mishap::Hang { Duration::from_secs(2) } else { ALWAYS };
    play(&store, &script, Deadlines { open: deadline, call: deadline, read: deadline, reach: SOON });
    use_it(&store, &mut pinned, 100);
    until_answered(&store, maintenance, &script);
    use_it(&store, &mut pinned, 100);
    if call == Call::Drop {
        lock(&store.names().state).let_go();
    }
    if call == Call::Close {
        store.close().unwrap();
        return assert!(script.has_happened(), "{context}");
    }
    script.wait();
    // The names are all there, in memory.
    let is_rebuilt = Script::new(Call::Open, Mishap::Error);
    until_answered(&store, maintenance, &is_rebuilt);
    assert!(file_names(&store).iter().eq(&pinned), "{context}");
    use_it(&store, &mut pinned, 50);
    assert!(store.verify(|_| {}).unwrap().findings.is_empty(), "{context}");
    store.close().unwrap();
}

#[test]
fn commits_folds_reads_lists_and_closing_go_on_whatever_becomes_of_a_call() {
    use Call::{Close, Create, Drop, Fill, Flush, Open, Read, Watermark};
    thread::scope(|scope| {
        for maintenance in [Maintenance::Thread, Maintenance::Inline] {
            for mishap in [Mishap::Error, Mishap::Panic, Mishap::Hang] {
                for call in [Open, Watermark, Create, Fill, Flush, Read, Close, Drop] {
                    scope.spawn(move || goes_on_after(call, mishap, maintenance));
                }
            }
        }
    });
}

#[test]
fn what_panics_while_it_is_opened_is_begun_anew_where_it_lies() {
    for call in [Call::Open, Call::Watermark, Call::Close] {
        let names = Names::new(None, SessionId([7; 16]), trust(0, 0, 0), keys());
        let script = Script::opened(call, Mishap::Panic);
        let in_memory = Arc::clone(&lock(&names.state).backend);
        lock(&names.state).to_open = Some((Arc::new(Arc::clone(&script)), Some(trust(7, 0, 0))));
        rebuild(&names, &["a"]);
        assert!(script.has_happened() && !lock(&names.state).is_current(&in_memory), "{call:?}");
        assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 9).unwrap(), ["a"], "{call:?}");
    }
}

#[test]
fn nobody_but_the_names_thread_waits_for_a_call_that_does_not_end() {
    // Not even for its deadline.
    let deadlines = Deadlines { open: ALWAYS, call: ALWAYS, read: SOON, reach: SOON };
    for call in [Call::Open, Call::Create, Call::Fill, Call::Flush, Call::Read] {
        let store = open(Maintenance::Thread);
        let mut pinned = BTreeSet::new();
        use_it(&store, &mut pinned, 50);
        let script = Script::new(call, Mishap::Hang);
        play(&store, &script, deadlines);
        if call == Call::Read {
            until_answered(&store, Maintenance::Thread, &script);
        }
        script.wait();
        use_it(&store, &mut pinned, 100);
        script.end();
        store.close().unwrap();
    }
}

#[test]
fn a_list_that_is_late_asks_the_facts_and_leaves_the_view_as_it_is() {
    let store = open(Maintenance::Thread);
    let mut pinned = BTreeSet::new();
    use_it(&store, &mut pinned, 20);
    let script = Script::new(Call::Read, Mishap::Hang);
    play(&store, &script, Deadlines { open: ALWAYS, call: ALWAYS, read: SOON, reach: SOON });
    until_answered(&store, Maintenance::Thread, &script);
    let backend = Arc::clone(&lock(&store.names().state).backend);
    for _ in 0..8 {
        assert!(file_names(&store).iter().eq(&pinned));
    }
    script.end();
    let state = lock(&store.names().state);
    assert!(state.is_current(&backend) && state.ready);
}

#[test]
fn closing_or_another_beginning_ends_a_rebuild_that_has_no_end() {
    let names = Names::new(None, SessionId([7; 16]), trust(0, 0, 0), keys());
    let endless = || (0u64..).map(|n| Ok::<_, ()>((DOMAIN, NameKind::Named, n.to_string())));
    for ends in [|names: &Names| names.restart(None), Names::stop] {
        let begun = Script::new(Call::Fill, Mishap::Error);
        thread::scope(|scope| {
            let backend = names.prepare().unwrap();
            let told = endless().inspect(|_| assert!(begun.meet(Call::Fill).is_err()));
            scope.spawn(|| names.rebuild(backend, told).unwrap());
            begun.wait();
            ends(&names);
        });
        assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 1), None);
        assert!(names.needs_rebuild());
    }
}

#[test]
#[cfg(feature = "sled")]
fn a_view_that_was_not_rebuilt_to_the_end_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    let names = Names::new(Some(path.clone()), SessionId([7; 16]), trust(0, 0, 0), keys());
    let backend = names.prepare().unwrap();
    let stopping = |n: u32| {
        if n == 10_000 {
            names.stop();
        }
        Ok::<_, ()>((DOMAIN, NameKind::Named, n.to_string()))
    };
    names.rebuild(backend, (0..20_000).map(stopping)).unwrap();
    apply(&names, 1, "later", Change::Set);
    names.close(Lsn(1));
    drop(names);
    assert!(!is_trusted(&path, &trust(7, 0, 1)));
}

#[test]
#[cfg(feature = "sled")]
fn what_is_left_behind_with_the_lock_of_sled_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names");
    written(&path);
    let left = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5), keys());
    assert!(left.prepare().is_none());
    // Such as another opening of the store, by the process in which a call has hung.
    let names = Names::new(Some(path.clone()), SessionId([8; 16]), trust(7, 2, 5), keys());
    rebuild(&names, &["a", "b", "c"]);
    assert_eq!(names.list(&[DOMAIN], NameKind::Named, None, 9).unwrap(), ["a", "b", "c"]);
    names.close(Lsn(5));
    left.close(Lsn(5));
    assert!(is_trusted(&path, &trust(8, 5, 5)), "as it was left");
}

#[test]
fn reads_do_not_wait_behind_writes() {
    let script = Script::new(Call::Flush, Mishap::Hang);
    let deadlines = Deadlines { open: ALWAYS, call: ALWAYS, read: ALWAYS, reach: SOON };
    let place = Arc::clone(&script);
    let (guard, ()) = Guard::open(deadlines, move || Ok((place.create(&keys())?, ()))).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| guard.write(Vec::new(), Some(vec![1])));
        script.wait();
        let range = KeyRange { after: vec![1], end: vec![2], limit: 9 };
        assert_eq!(guard.keys_in(vec![range]).unwrap(), Some(vec![Vec::new()]));
        script.end();
    });
}
