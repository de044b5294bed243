//! Exports of documents.

use serde_json::{Value, json};

use super::*;
use crate::blobs::PutNamed;
use crate::transfer::path::RawPath;

/// What is in the files of documents.
const CONTENTS: [&str; 3] = ["", "content", r#"{"imageLayoutVersion":"1.0.0"}"#];

/// Paths that are none, or lead elsewhere.
const BAD_PATHS: [&[u8]; 12] =
    [b"", b".", b"..", b"/", b"/a", b"a/", b"a//b", b"./a", b"../a", b"a/../../a", b"a\0", b"a/../../../secret"];

/// What may be written into the text of a document.
const PIECES: [&str; 14] =
    ["\"", "{", "}", "[", "]", ",", "\\", "..", "../", "\\u0000", "null", "1e999", "\"type\":\"link\",", "[[[[[[[["];

/// One document and its parts.
struct Documents<'a> {
    lab: &'a Lab,
    digests: Vec<String>,
    /// Paths of directories, and of everything, that were listed so far.
    dirs: Vec<Vec<u8>>,
    listed: Vec<Vec<u8>>,
}

impl Documents<'_> {
    fn path(&self, draws: &mut Draws) -> Vec<u8> {
        match draws.below(24) {
            0 => draws.pick(&BAD_PATHS).to_vec(),
            1 => self.lab.outside(draws),
            2 if !self.listed.is_empty() => draws.pick(&self.listed),
            3 if !self.listed.is_empty() => [&draws.pick(&self.listed)[..], b"/", draws.pick(&NAMES)].concat(),
            4 => b"a/".repeat(draws.below(3000)),
            _ => [&draws.pick(&self.dirs)[..], draws.pick(&NAMES)].concat(),
        }
    }

    fn row(&mut self, draws: &mut Draws) -> Value {
        let path = self.path(draws);
        let mode = draws.pick(&[0o755, 0o644, 0o700, 0o555, 0, 0o4755, 0o2755, 0o1777, 0o7777]);
        let mut row = json!({ "path": RawPath(path.clone()), "mode": mode });
        match draws.below(4) {
            0 | 1 => {
                row["type"] = "dir".into();
                self.dirs.push([&path[..], b"/"].concat());
            }
            2 => {
                row["type"] = "file".into();
                row["digest"] = draws.pick(&self.digests).into();
            }
            _ => {
                row["type"] = "link".into();
                row["target"] = json!(RawPath(self.lab.outside(draws)));
            }
        }
        self.listed.push(path);
        if draws.one_in(40) {
            let field = draws.pick(&["path", "mode", "type", "digest", "target"]);
            let missing = format!("sha256:{}", "0".repeat(64));
            let bad = [
                json!(null),
                json!(-1),
                json!(1u64 << 40),
                json!(1e300),
                json!("x"),
                json!([1, 2]),
                json!({}),
                json!(missing),
            ];
            row[field] = draws.pick(&bad);
        }
        row
    }

    fn rows(&mut self, draws: &mut Draws) -> Value {
        (0..draws.below(8)).map(|_| self.row(draws)).collect()
    }

    /// Stores a document, perhaps changed here and there.
    fn put(&self, document: &Value, draws: &mut Draws) -> Digest {
        let mut text = document.to_string().into_bytes();
        while draws.one_in(6) {
            let at = draws.below(text.len() + 1);
            let end = (at + draws.below(12)).min(text.len());
            match draws.below(4) {
                0 => drop(text.splice(at..end, draws.pick(&PIECES).bytes())),
                1 => drop(text.drain(at..end)),
                2 => drop(text.splice(at..at, text[at..end].to_vec())),
                _ if at < end => text[at] = u8::try_from(draws.below(256)).unwrap(),
                _ => {}
            }
        }
        self.lab.store.put(text, Algorithm::Sha256).unwrap().digest
    }

    fn pin_folder(&mut self, draws: &mut Draws) {
        let parts = draws.below(3);
        let kind = |expected: &'static str, draws: &mut Draws| if draws.one_in(20) { "folder" } else { expected };
        let mut listed: Vec<String> = (0..parts)
            .map(|_| {
                let document = json!({ "strongroom": kind("folder-part", draws), "entries": self.rows(draws) });
                self.put(&document, draws).to_string()
            })
            .collect();
        if draws.one_in(12) {
            listed.push(draws.pick(&self.digests));
        }
        let mut whole = json!({ "strongroom": kind("folder", draws), "entries": self.rows(draws), "parts": listed });
        if draws.one_in(10) {
            whole["parts"] = draws.pick(&[json!(null), json!(7), json!(["x"])]);
        }
        let whole = self.put(&whole, draws);
        self.lab.store.named().set("case", &whole, PutNamed::new()).unwrap();
    }

    fn pin_layout(&self, draws: &mut Draws) {
        let manifests: Vec<_> = (0..draws.below(3)).map(|_| json!({ "digest": draws.pick(&self.digests) })).collect();
        let index = self.put(&json!({ "schemaVersion": 2, "manifests": manifests }), draws);
        let mut held: Vec<Digest> = (0..draws.below(3)).map(|_| draws.pick(&self.digests).parse().unwrap()).collect();
        if !draws.one_in(8) {
            held.push(self.digests[2].parse().unwrap()); // the marker, where it should be
        }
        self.lab.store.named().set("case", &index, PutNamed::new().references(held)).unwrap();
    }
}

/// Makes something where an export goes to, and tells whether it may go there.
fn destination(lab: &Lab, draws: &mut Draws) -> bool {
    let to = lab.path("to");
    match draws.below(12) {
        0 => fs::create_dir(&to).unwrap(),
        1 => {
            fs::create_dir(&to).unwrap();
            symlink(lab.dir.path().join("around/dir"), to.join("a")).unwrap();
            return false;
        }
        2 => {
            symlink(draws.pick(&["../dir/empty", "../dir", "nowhere"]), &to).unwrap();
            return false;
        }
        3 => {
            fs::write(&to, "a file").unwrap();
            return false;
        }
        _ => {}
    }
    true
}

#[test]
fn an_export_writes_nothing_outside_of_its_folder() {
    let mut exported = 0;
    cases(|lab, draws| {
        let digests = CONTENTS.map(|content| lab.store.put(content, Algorithm::Sha256).unwrap().digest.to_string());
        let mut documents = Documents { lab, digests: digests.into(), dirs: vec![Vec::new()], listed: Vec::new() };
        if draws.one_in(5) {
            documents.pin_layout(draws)
        } else {
            documents.pin_folder(draws)
        }
        let may_go = destination(lab, draws);
        let bits = draws.pick(&[SpecialBits::Drop, SpecialBits::Set]);
        let before = snapshot(&lab.path(""));
        let planned = transfer::plan(&lab.store, "case");
        let result = lab.export(bits);
        let after = snapshot(&lab.path(""));
        if planned.is_err() || !may_go {
            assert!(result.is_err());
            assert_eq!(after, before, "something was written");
        }
        if result.is_ok() {
            exported += 1;
            let made = after.iter().filter(|(path, _)| path.starts_with("to/") && path.components().count() > 1);
            for (path, (mode, content)) in made {
                let is_file = mode & 0o170_000 == 0o100_000;
                let is_index = path.ends_with("index.json");
                assert!(!is_file || is_index || CONTENTS.iter().any(|known| known.as_bytes() == content), "{path:?}");
                assert!(bits == SpecialBits::Set || mode & 0o7000 == 0, "{path:?}");
            }
        }
    });
    println!("{exported} exports succeeded");
    assert!(exported > 0, "valid documents are among them");
}
