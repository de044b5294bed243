//! Backups of a store that is in use, from the command line: while it is written to, and when they or the process that
//! writes are killed.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::ops::{ControlFlow, RangeInclusive};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use strongroom::keys::LocalKey;
use strongroom::registry::{Repository, RepositoryName, RepositorySettings};
use strongroom::{CollectOptions, Error, Lsn, Options, Store};

use crate::command::{command, ok, refused, rows, strongroom};
use crate::common::acknowledged::{Change, Client, Held};
use crate::common::{Random, tell};

/// Names the directory of a [`Lab`] to a process that is to write to its store.
const WRITER: &str = "STRONGROOM_WRITER";

/// The number of backups, and in how many of them one is killed before.
fn rounds() -> u64 {
    std::env::var("STRONGROOM_BACKUPS").ok().and_then(|count| count.parse().ok()).unwrap_or(8)
}

/// A store that another process writes to, and that process's journal.
struct Lab(PathBuf);

/// A change that was begun, and the commits among which its own is.
struct Noted {
    change: Change,
    commits: RangeInclusive<Lsn>,
}

impl Noted {
    /// Whether nothing says yet that it was done.
    fn is_open(&self) -> bool {
        self.commits.end().get() == u64::MAX
    }
}

impl Lab {
    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// The key's file; there is none where the store is not encrypted.
    fn key(&self) -> PathBuf {
        self.0.join("key")
    }

    fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// A file that tells the writer to end.
    fn stop(&self) -> PathBuf {
        self.0.join("stop")
    }

    fn options(&self) -> Options {
        let options = Options::new().log_file_size(4 << 20).retention(Duration::from_secs(5));
        if self.key().exists() {
            return options.key_provider(Arc::new(LocalKey::from_file(self.key()).unwrap()));
        }
        options
    }

    /// What the journal says was done: each change is noted before and after. Of one during which the writer was
    /// killed, the next one says whether it was done.
    fn noted(&self) -> Vec<Noted> {
        let mut noted: Vec<Noted> = Vec::new();
        let begin = |noted: &mut Vec<Noted>, change| {
            let next = noted.last().map_or(0, |noted| noted.commits.end().get()) + 1;
            noted.push(Noted { change, commits: next.into()..=u64::MAX.into() });
        };
        let text = fs::read_to_string(self.journal()).unwrap_or_default();
        // A line without an end was being written.
        for line in text.lines().filter_map(|line| line.strip_suffix(';')) {
            let lsn = |lsn: &str| Lsn::from(lsn.parse::<u64>().unwrap());
            match line.split(' ').collect::<Vec<_>>()[..] {
                ["push", manifest, layer] => {
                    let change = Change::Push { manifest: manifest.parse().unwrap(), layer: layer.parse().unwrap() };
                    begin(&mut noted, change);
                }
                ["delete", manifest] => begin(&mut noted, Change::Delete(manifest.parse().unwrap())),
                ["set", name, digest] => begin(&mut noted, Change::Set(name.to_owned(), digest.parse().unwrap())),
                ["remove", name] => begin(&mut noted, Change::Remove(name.to_owned())),
                ["done", at] => noted.last_mut().unwrap().commits = lsn(at)..=lsn(at),
                ["open", _, "undone"] => drop(noted.pop_if(|last| last.is_open())),
                ["open", at, "done"] => {
                    if let Some(last) = noted.last_mut().filter(|last| last.is_open()) {
                        last.commits = *last.commits.start()..=lsn(at);
                    }
                }
                _ => panic!("{line}"),
            }
        }
        noted
    }

    /// The last commit that was acknowledged.
    fn acknowledged(&self) -> Lsn {
        self.noted().iter().rfind(|noted| !noted.is_open()).map(|noted| *noted.commits.end()).unwrap_or_default()
    }

    /// Makes changes, and collects, until it is told to stop, or killed.
    fn write(&self) {
        let store = self.options().create(true).open(self.data()).unwrap();
        let repository = app(&store);
        let (noted, held) = (self.noted(), Held::by(&store, repository.name()));
        let is_done = held == Held::after(noted.iter().map(|noted| &noted.change));
        let acknowledged = noted.iter().filter(|noted| !noted.is_open()).map(|noted| &noted.change);
        assert!(is_done || held == Held::after(acknowledged), "{held:#?}");
        let mut journal = fs::OpenOptions::new().create(true).append(true).open(self.journal()).unwrap();
        let mut note = |line: String| journal.write_all(format!("{line};\n").as_bytes()).unwrap();
        note(format!("\nopen {} {}", store.last_lsn(), if is_done { "done" } else { "undone" }));
        let mut client = Client::new(&store, repository, Random(store.last_lsn().get()));
        for n in 1u64.. {
            if self.stop().exists() {
                break;
            }
            let planned = client.plan();
            note(match &planned.change {
                Change::Push { manifest, layer } => format!("push {manifest} {layer}"),
                Change::Delete(manifest) => format!("delete {manifest}"),
                Change::Set(name, digest) => format!("set {name} {digest}"),
                Change::Remove(name) => format!("remove {name}"),
            });
            note(format!("done {}", client.carry_out(&planned)));
            if n.is_multiple_of(200) {
                store.collect(&CollectOptions::new().max_dead(10), |_| ControlFlow::Continue(())).unwrap();
            }
        }
        store.close().unwrap();
    }
}

fn app_name() -> RepositoryName {
    "app".parse().unwrap()
}

fn app(store: &Store) -> Repository {
    match store.create_repository(&app_name(), RepositorySettings::new()) {
        Err(Error::RepositoryExists { .. }) => store.repository(&app_name()).unwrap(),
        created => created.unwrap(),
    }
}

/// What a store may have as of a commit: a change during which the writer was killed may be done or not.
fn possible(noted: &[Noted], lsn: Lsn) -> [Held; 2] {
    let is_done = |noted: &&Noted| *noted.commits.end() <= lsn;
    let may_be_done = |noted: &&Noted| *noted.commits.start() <= lsn;
    let changes = |noted: &mut dyn Iterator<Item = &Noted>| Held::after(noted.map(|noted| &noted.change));
    [changes(&mut noted.iter().filter(is_done)), changes(&mut noted.iter().filter(may_be_done))]
}

/// A process that writes to the store of a lab.
struct Writer<'a> {
    lab: &'a Lab,
    child: Child,
}

impl<'a> Writer<'a> {
    /// Starts one, and waits until it has the store open.
    fn start(lab: &'a Lab) -> Self {
        let opened = || fs::read_to_string(lab.journal()).unwrap_or_default().matches("open ").count();
        let before = opened();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "backup::writes_where_another_test_asks_for_it"]).env(WRITER, &lab.0);
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        while opened() == before {
            assert!(child.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        Self { lab, child }
    }

    fn kill(&mut self) {
        assert!(self.child.try_wait().unwrap().is_none(), "it ended by itself");
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn stop(mut self) {
        fs::write(self.lab.stop(), "").unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Writer<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn writes_where_another_test_asks_for_it() {
    if let Some(dir) = std::env::var_os(WRITER) {
        Lab(dir.into()).write();
    }
}

#[test]
fn backups_of_a_store_in_use_hold_what_was_acknowledged_also_after_kills() {
    for encrypted in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let lab = Lab(dir.path().to_path_buf());
        let (data, key) = (lab.data(), lab.key());
        if encrypted {
            LocalKey::create_file(&key).unwrap();
        }
        let start = |arguments: &[&str]| {
            let key = ["--key-file", key.to_str().unwrap()];
            let key: &[&str] = if encrypted { &key } else { &[] };
            command(&data, &[&["--json"], arguments, key].concat()).spawn().unwrap()
        };
        let end = |child: Child| {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()
        };
        let to = |n: u64| dir.path().join(format!("backup-{n}"));
        let mut random = Random(3);
        let (mut kills, mut seen) = ([0, 0], BTreeMap::new());
        let mut writer = Writer::start(&lab);
        let begin = Instant::now();
        end(start(&["backup", to(1_000).to_str().unwrap()]));
        let whole = begin.elapsed();
        for n in 0..rounds() {
            let path = to(n);
            let path = path.to_str().unwrap();
            let mut pause = || std::thread::sleep(whole.mul_f64(random.below(1500) as f64 / 1000.0));
            let mut child = start(&["backup", path, "--no-links"]);
            pause();
            child.kill().unwrap();
            kills[0] += u64::from(!child.wait().unwrap().success());
            if Path::new(path).exists() {
                // It was whole by then.
                let copy = lab.options().read_only(true).open(path).unwrap();
                assert!(copy.verify(|_| {}).unwrap().findings.is_empty());
                seen.insert(copy.last_lsn(), Held::by(&copy, &app_name()));
                fs::remove_dir_all(path).unwrap();
            }
            let before = lab.acknowledged();
            let child = start(&["backup", path]);
            if n % 2 == 1 {
                pause();
                writer.kill();
                kills[1] += 1;
            }
            let told = end(child);
            assert!(!PathBuf::from(format!("{path}.incomplete")).exists());
            let copy = lab.options().read_only(n % 4 < 2).open(path).unwrap();
            assert!(copy.last_lsn() >= before);
            assert!(n % 4 >= 2 || Some(copy.last_lsn().get()) == told["lsn"].as_u64());
            assert!(copy.verify(|_| {}).unwrap().findings.is_empty());
            seen.insert(told["lsn"].as_u64().unwrap().into(), Held::by(&copy, &app_name()));
            if n % 2 == 1 {
                writer = Writer::start(&lab);
            }
        }
        writer.stop();
        let noted = lab.noted();
        for (lsn, found) in &seen {
            assert!(possible(&noted, *lsn).contains(found), "the backup of commit {lsn}: {found:#?}");
        }
        tell(&format!(
            "{} backups beside {} changes (encrypted: {encrypted}), {} of others killed, and {} writers",
            seen.len(),
            noted.len(),
            kills[0],
            kills[1]
        ));
        assert!(seen.len() as u64 > rounds() / 2);
        // What one is restored from is not needed any more.
        fs::remove_dir_all(&data).unwrap();
        let last = to(rounds() - 1);
        let told = end(start(&["restore", last.to_str().unwrap(), data.to_str().unwrap()]));
        assert_eq!(told["findings"].as_array().unwrap().len(), 0);
        fs::remove_dir_all(&last).unwrap();
        let store = lab.options().open(&data).unwrap();
        assert_eq!(Held::by(&store, &app_name()), *seen.last_key_value().unwrap().1);
        app(&store).put("and on it goes", strongroom::Algorithm::Sha256).unwrap();
    }
}

#[test]
fn a_backup_with_a_base_copies_what_is_new_and_one_of_a_damaged_store_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (data, file) = (dir.path().join("data"), dir.path().join("file"));
    ok(&data, &["init"]);
    let put = |n: u8| {
        fs::write(&file, vec![n; 5 << 20]).unwrap();
        ok(&data, &["put", file.to_str().unwrap()]);
    };
    let [first, second, third] = ["first", "second", "third"].map(|name| dir.path().join(name));
    let [first, second, third] = [&first, &second, &third].map(|path| path.to_str().unwrap());
    put(1);
    assert!(ok(&data, &["backup", first, "--no-links"]).contains("0 files linked"));
    put(2);
    let told = rows(&data, &["backup", second, "--no-links", "--base", first]);
    assert!(told[0]["linked_bytes"].as_u64() > Some(5 << 20) && told[0]["copied_bytes"].as_u64() < Some(6 << 20));
    refused(&data, &["backup", second], 1, &["no empty directory"]);
    refused(&data, &["backup", third, "--base", dir.path().to_str().unwrap()], 3, &["no strongroom store"]);
    assert!(ok(Path::new(second), &["verify"]).contains("all sound"));
    let segments = data.join("segments/0000000000");
    fs::remove_file(fs::read_dir(&segments).unwrap().next().unwrap().unwrap().path()).unwrap();
    refused(&data, &["backup", third], 4, &["1 findings"]);
    // A restore reads all of it, unless it is told not to. What the backup does not have is one finding, and the blob
    // that lay there another; in JSON, all of it is one document.
    let restored = dir.path().join("restored");
    refused(&data, &["restore", third, restored.to_str().unwrap()], 4, &["findings"]);
    fs::remove_dir_all(&restored).unwrap();
    let output = strongroom(&data, &["--json", "restore", third, restored.to_str().unwrap()]);
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(4));
    assert!(told["lsn"].as_u64() > Some(0) && told["blobs"].as_u64() > Some(0), "{told}");
    let [missing, findings] = ["missing", "findings"].map(|list| told[list].as_array().unwrap().len());
    assert!(missing == 1 && findings > 0, "{told}");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&format!("{} findings", missing + findings)));
    let again = dir.path().join("damaged");
    let output = strongroom(&data, &["--json", "backup", again.to_str().unwrap()]);
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap()["missing"].as_array().unwrap().len(),
        1
    );
    // What is there is named for what it is.
    for there in [again.to_str().unwrap(), file.to_str().unwrap()] {
        refused(&data, &["backup", there], 1, &[there, "is there already and is no empty directory"]);
    }
    ok(&data, &["restore", first, dir.path().join("again").to_str().unwrap(), "--no-verify"]);
    assert!(ok(&dir.path().join("again"), &["verify"]).contains("all sound"));
}
