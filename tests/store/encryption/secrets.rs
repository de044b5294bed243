//! No key stands in what is printed, whatever is printed, nor in any file.

use std::fmt::{Debug, Write as _};
use std::ops::ControlFlow;
use std::sync::Arc;

use strongroom::keys::{KeyProvider, LocalKey, Passphrase, SecretKey};
use strongroom::vfs::SimVfs;
use strongroom::{Algorithm, Error, Options, Store};

use super::lab::{DOMAINS, Keeper, Mood, build, domain, open, options, repository_of};
use crate::common::registry::name;

/// Collects all that is printed.
#[derive(Default)]
struct Printed(String);

impl Printed {
    fn debug(&mut self, value: &impl Debug) {
        let _ = write!(self.0, "{value:?}\n{value:#?}\n");
    }

    fn error<T: Debug>(&mut self, result: Result<T, Error>) {
        self.debug(&result);
        let mut source: Option<&dyn std::error::Error> = result.as_ref().err().map(|error| error as _);
        while let Some(error) = source {
            let _ = write!(self.0, "{error}\n{error:?}\n");
            source = error.source();
        }
    }
}

/// Base64, as keys are often written.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        out.extend((0..=three.len()).map(|n| char::from(DIGITS[(bits >> (18 - 6 * n) & 63) as usize])));
    }
    out
}

/// A secret in the forms in which it could be printed; of each enough to know it by.
fn forms(secret: &[u8]) -> Vec<String> {
    let hex = |upper: bool| {
        secret
            .iter()
            .take(8)
            .fold(String::new(), |out, byte| out + &if upper { format!("{byte:02X}") } else { format!("{byte:02x}") })
    };
    let list = |separator: &str| secret.iter().take(6).map(u8::to_string).collect::<Vec<_>>().join(separator);
    let hexes = secret.iter().take(6).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(", ");
    vec![hex(false), hex(true), list(", "), list(",\n"), hexes, base64(&secret[..9])]
}

/// The lists of 32 small numbers, as bytes are printed, and what stands before each.
fn lists_of_32(printed: &str) -> Vec<String> {
    let printed: String = printed.chars().filter(|one| !one.is_whitespace()).collect();
    let mut lists = Vec::new();
    for (at, _) in printed.match_indices('[') {
        let rest = &printed[at + 1..];
        let list = &rest[..rest.find(|one: char| !one.is_ascii_digit() && one != ',').unwrap_or(rest.len())];
        if list.split(',').filter(|number| number.parse::<u8>().is_ok()).count() == 32 {
            lists.push(printed.chars().take(at).skip(at.saturating_sub(60)).collect());
        }
    }
    lists
}

/// Prints all there is of a store, and what comes of wrong keys.
fn print_everything(keeper: &Arc<Keeper>, disk: &SimVfs) -> Printed {
    let mut printed = Printed::default();
    let store = open(disk, Some(keeper)).unwrap();
    printed.debug(&options(disk, Some(keeper)));
    printed.debug(keeper);
    printed.debug(&SecretKey::from_bytes(keeper.secret));
    printed.debug(&LocalKey::new(SecretKey::from_bytes(keeper.secret)));
    let passphrase = Passphrase::new("the passphrase of this test");
    printed.debug(&passphrase);
    for (context, key, _) in keeper.seen.lock().unwrap().iter() {
        printed.debug(context);
        printed.debug(&SecretKey::from_bytes(*key));
    }
    let upload = store.begin_upload(Algorithm::Sha256).unwrap();
    store.append_upload(upload, 0, vec![1; 70_000]).unwrap();
    print_store(&store, &mut printed);
    store.rotate_data_key(None).unwrap();
    store.rotate_data_key(Some(&domain(DOMAINS[0]))).unwrap();
    print_store(&store, &mut printed);
    printed.debug(&store.rewrite(|_| ControlFlow::Continue(())).unwrap());
    store.put("after that", Algorithm::Sha256).unwrap();
    print_store(&store, &mut printed);
    for mood in [Mood::Denied, Mood::Gone, Mood::Unreachable] {
        keeper.refuse_after(0, mood);
        printed.error(store.rotate_data_key(None));
        printed.error(store.create_domain(&domain("another"), None));
        keeper.answer_again();
    }
    printed.error(store.create_domain(&domain(DOMAINS[0]), None));
    printed.error(store.shred_domain(&domain("missing")));
    store.shred_domain(&domain(DOMAINS[1])).unwrap();
    print_store(&store, &mut printed);
    printed.error(store.repository(&name(&repository_of(Some(DOMAINS[1])))));
    store.close().unwrap();
    printed.error(open(disk, None));
    printed.error(open(disk, Some(&Keeper::new(77))));
    printed.error(options(disk, None).key_provider(Arc::new(passphrase)).open("/store"));
    // Damaged keys, one after the other, and what lies in all other files.
    for path in disk.files() {
        let bytes = disk.read_file(&path).unwrap().len() as u64;
        for n in 0..2.min(bytes) {
            let damaged = disk.restarted();
            damaged.flip_bit(&path, bytes * 2 * n + 9 * n).unwrap();
            match open(&damaged, Some(keeper)) {
                Ok(store) => {
                    printed.debug(&store.verify(|_| {}));
                    printed.error(store.rewrite(|_| ControlFlow::Continue(())));
                }
                Err(error) => printed.error(Err::<(), _>(error)),
            }
        }
    }
    printed
}

fn print_store(store: &Store, printed: &mut Printed) {
    printed.debug(store);
    printed.debug(&store.domains());
    for stat in store.blobs().flatten() {
        let blob = store.get(&stat.digest).unwrap();
        blob.slice(0..blob.len().min(10)).unwrap();
        printed.debug(&blob);
        printed.debug(&blob.reader());
    }
    printed.debug(&store.repository(&name(&repository_of(Some(DOMAINS[0])))).unwrap());
    printed.debug(store);
}

#[test]
fn no_key_is_printed_and_none_stands_in_a_file() {
    let keeper = Keeper::new(5);
    let (disk, known) = build(Some(&keeper));
    let printed = print_everything(&keeper, &disk);
    let secrets = keeper.data_keys();
    assert!(secrets.len() >= 5 && printed.0.len() > 10_000, "{} keys, {} printed", secrets.len(), printed.0.len());
    for secret in secrets.iter().chain([&keeper.secret]) {
        for form in forms(secret) {
            assert!(!printed.0.contains(&form), "a key: {form}");
        }
        for path in disk.files() {
            let bytes = disk.read_file(&path).unwrap();
            assert!(!bytes.windows(16).any(|window| window == &secret[..16]), "a key in {}", path.display());
            let text = String::from_utf8_lossy(&bytes);
            assert!(!forms(secret).iter().any(|form| text.contains(form)), "a key in {}", path.display());
        }
    }
    assert!(!printed.0.contains("the passphrase of this test"));
    // Keys that are derived from them, which no test can know: there are no 32 bytes at all.
    assert_eq!(lists_of_32(&printed.0), Vec::<String>::new());
    // Nor is what lies in memory of contents and facts.
    for content in known.uploads.values().chain(&known.contents).filter(|content| content.len() > 16) {
        assert!(!forms(content).iter().any(|form| printed.0.contains(form)), "content");
    }
    for tag in known.names.iter().filter(|name| name.starts_with("release-")) {
        assert!(!printed.0.contains(tag), "{tag}");
    }
}

#[test]
fn the_search_for_keys_finds_those_that_are_printed() {
    let key = Keeper::new(5).secret;
    let hex = key.iter().fold(String::new(), |out, byte| out + &format!("{byte:02x}"));
    for printed in [format!("{key:?}"), format!("{key:#?}"), format!("{key:02x?}"), hex, base64(&key)] {
        let printed = printed.replace(",\n    ", ",\n");
        assert!(forms(&key).iter().any(|form| printed.contains(form)), "{printed}");
    }
    let _ = Options::new().key_provider(Keeper::new(1) as Arc<dyn KeyProvider>);
}
