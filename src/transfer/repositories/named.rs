//! Writing named files: their names to a list, their content to where all blobs are.
//!
//! ```text
//! line  {"domain": null, "name": name, "digest": digest, "bytes": 7, "references": [digest, …],
//!        "created_ms": 1801396800000, "modified_ms": 1801396800000,
//!        "expires_in_seconds": null, "expires_at": null, "expired": false}
//! ```
//!
//! A name may be any text, such as `../x`: it is only ever in this list, and no path is made of it.

use std::io::{BufWriter, Write as _};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::blobs::{Blob, Expires, NamedBlob, NamedFile};
use crate::digest::Digest;
use crate::error::{Error, Result as StoreResult};
use crate::keys::DomainName;
use crate::store::{DomainInfo, NamedFiles, Store};
use crate::transfer::error::{TransferError, at};
use crate::transfer::path::TreePath;
use crate::transfer::registries::Reason;
use crate::transfer::repositories::{Dirs, Export};

/// The list, one JSON document a line, so that neither side has to hold all of it.
pub(super) const NAMED: &str = "named.jsonl";

impl Export<'_> {
    /// Writes the named files of all key domains that are not locked.
    pub(super) fn named_files(
        &mut self,
        store: &Store,
        blobs: &TreePath,
        dirs: &mut Dirs,
    ) -> Result<TreePath, TransferError> {
        let path = TreePath::new(NAMED)?;
        let whole = self.tree.whole(&path);
        let mut list = BufWriter::new(self.tree.create_empty(&path)?);
        for DomainInfo { name: domain, .. } in store.domains() {
            let files = match domain.as_ref().map_or_else(|| Ok(store.named()), |domain| store.named_in(domain)) {
                Err(Error::DomainNotFound { .. }) => continue, // destroyed meanwhile
                Err(Error::Key { .. }) => {
                    let domain = domain.as_ref().map_or("", DomainName::as_str);
                    self.report.skipped.add("", format!("key domain {domain}"), Reason::Locked);
                    continue;
                }
                other => other?,
            };
            for listed in files.iter("") {
                let Some(file) = self.named_file(&files, listed?, blobs, dirs)? else { continue };
                writeln!(list, "{}", line(domain.as_ref(), &file)).map_err(at(&whole))?;
                self.report.named += 1;
                self.counting.item().map_err(|_| TransferError::Stopped)?;
            }
        }
        list.flush().map_err(at(&whole))?;
        Ok(path)
    }

    /// Writes the content of a file, and what it references. Returns the file as it is now, if it is still there.
    fn named_file(
        &mut self,
        files: &NamedFiles,
        listed: NamedFile,
        blobs: &TreePath,
        dirs: &mut Dirs,
    ) -> Result<Option<NamedFile>, TransferError> {
        let (file, content) = match files.get(&listed.name) {
            Ok(NamedBlob { file, blob }) => (file, Ok(blob)),
            Err(Error::NamedNotFound { .. }) => return Ok(None),
            Err(error) => (listed, Err(error)),
        };
        self.blob_once(blobs, dirs, &file.digest, || content)?;
        for reference in &file.references {
            self.blob_once(blobs, dirs, reference, || files.blob(reference))?;
        }
        Ok(Some(file))
    }

    /// Writes a blob to where all blobs are, unless it is there.
    fn blob_once(
        &mut self,
        blobs: &TreePath,
        dirs: &mut Dirs,
        digest: &Digest,
        open: impl FnOnce() -> StoreResult<Blob>,
    ) -> Result<(), TransferError> {
        let path = format!("{}/{}", digest.algorithm().name(), digest.hex());
        if self.tree.kind(&TreePath::of(Some(blobs), path.as_bytes())?)?.is_none() {
            self.blob("", blobs, dirs, digest, open)?;
        }
        Ok(())
    }
}

/// What the list says of a file.
fn line(domain: Option<&DomainName>, file: &NamedFile) -> Value {
    let (expires_in, expires_at) = match file.expires {
        Expires::Never => (None, None),
        Expires::After(left) => (Some(left.as_secs()), None),
        Expires::At(time) => (None, time.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs())),
    };
    let references: Vec<_> = file.references.iter().map(Digest::to_string).collect();
    json!({
        "domain": domain.map(DomainName::as_str), "name": file.name, "digest": file.digest.to_string(),
        "bytes": file.len, "references": references, "created_ms": file.created_ms, "modified_ms": file.modified_ms,
        "expires_in_seconds": expires_in, "expires_at": expires_at, "expired": file.is_expired,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::ops::ControlFlow;
    use std::path::Path;
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::blobs::PutNamed;
    use crate::digest::Algorithm;
    use crate::keys::{InPlain, KeyContext, KeyError, KeyProvider, SecretKey};
    use crate::store::Options;
    use crate::transfer::registries::RegistryExport;
    use crate::transfer::{Progress, export_all};

    fn goes_on(_: Progress) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Exports everything; returns the lines of the list by their domains and names.
    fn export(store: &Store, to: &Path) -> (RegistryExport, BTreeMap<(Option<String>, String), Value>) {
        let report = export_all(store, to, goes_on).unwrap();
        let list = fs::read_to_string(to.join(NAMED)).unwrap();
        let lines = list.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (report, lines.map(|line| ((text(&line["domain"]), text(&line["name"]).unwrap()), line)).collect())
    }

    fn content(to: &Path, digest: &Digest) -> Vec<u8> {
        fs::read(to.join("blobs").join(digest.algorithm().name()).join(digest.hex())).unwrap()
    }

    #[test]
    fn names_of_any_text_are_listed_and_lead_nowhere() {
        let dir = tempfile::tempdir().unwrap();
        let store = Options::new().create(true).open(dir.path().join("store")).unwrap();
        let names = ["../x", "/etc/passwd", ".", "a/../../b", "named.jsonl", "sha256:ab", "größe \"\\ \u{202e}", " "];
        for name in names {
            store.named().put(name, format!("of {name}"), PutNamed::new()).unwrap();
        }
        let held = store.put("held", Algorithm::Blake3).unwrap().digest;
        let put = PutNamed::new().references([held]).expires_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        store.named().put("with more", "content", put).unwrap();
        store.named().put("soon", "content", PutNamed::new().expires_after(Duration::from_secs(3600))).unwrap();

        let to = dir.path().join("to");
        let (report, lines) = export(&store, &to);
        assert_eq!((report.named, report.skipped.count(), lines.len()), (10, 0, 10));
        assert_eq!(fs::read_dir(&to).unwrap().count(), 3);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        for name in names {
            let line = &lines[&(None, name.to_owned())];
            let digest = line["digest"].as_str().unwrap().parse().unwrap();
            assert_eq!(content(&to, &digest), format!("of {name}").into_bytes());
        }
        let line = &lines[&(None, "with more".to_owned())];
        assert_eq!(line["references"], json!([held.to_string()]));
        assert_eq!(
            (&line["expires_at"], &line["bytes"], &line["expired"]),
            (&json!(1_u64 << 33), &json!(7), &json!(false))
        );
        assert_eq!(content(&to, &held), b"held");
        assert!(lines[&(None, "soon".to_owned())]["expires_in_seconds"].as_u64().unwrap() <= 3600);
    }

    /// Does not unwrap the key of this id.
    #[derive(Debug)]
    struct Without(&'static str);

    impl KeyProvider for Without {
        fn key_id(&self) -> Result<String, KeyError> {
            InPlain.key_id()
        }

        fn wrap(&self, id: &str, key: &SecretKey, context: &KeyContext) -> Result<Vec<u8>, KeyError> {
            InPlain.wrap(id, key, context)
        }

        fn unwrap(&self, id: &str, wrapped: &[u8], context: &KeyContext) -> Result<SecretKey, KeyError> {
            match id == self.0 {
                true => Err(KeyError::Denied { reason: "it is another's".into() }),
                false => InPlain.unwrap(id, wrapped, context),
            }
        }
    }

    #[test]
    fn named_files_of_all_domains_are_written_and_locked_ones_are_reported() {
        if cfg!(not(feature = "encryption")) {
            return; // there is one domain only
        }
        let dir = tempfile::tempdir().unwrap();
        let open = |denied| {
            let options = Options::new().create(true).key_provider(Arc::new(Without(denied)));
            options.open(dir.path().join("store")).unwrap()
        };
        let store = open("none");
        store.named().put("name", "of the default domain", PutNamed::new()).unwrap();
        for (domain, key) in [("tenant", "theirs"), ("other", "others")] {
            let domain = domain.parse().unwrap();
            store.create_domain(&domain, Some(key)).unwrap();
            let files = store.named_in(&domain).unwrap();
            let held = files.put("held", format!("held in {domain}"), PutNamed::new()).unwrap().file.digest;
            files.put("name", format!("of {domain}"), PutNamed::new().references([held])).unwrap();
            files.remove("held", crate::transaction::ExpectNamed::Any).unwrap();
        }
        store.close().unwrap();

        let store = open("others");
        let to = dir.path().join("to");
        let (report, lines) = export(&store, &to);
        assert_eq!((report.named, lines.len()), (2, 2));
        let of = |text: &str| Digest::of(Algorithm::Sha256, text.as_bytes());
        for text in ["of the default domain", "of tenant", "held in tenant"] {
            assert_eq!(content(&to, &of(text)), text.as_bytes());
        }
        assert_eq!(lines[&(Some("tenant".into()), "name".into())]["digest"], of("of tenant").to_string());
        assert_eq!(lines[&(None, "name".into())]["digest"], of("of the default domain").to_string());
        let skipped = report.skipped.listed();
        assert_eq!((&*skipped[0].what, &skipped[0].reason, skipped.len()), ("key domain other", &Reason::Locked, 1));
    }
}
