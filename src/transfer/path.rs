//! Paths of what is in a folder: bytes, as file systems have them, and JSON, as documents have them.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::transfer::error::TransferError;

/// A path below the root of a tree: names between slashes, none of them empty, `.` or `..`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TreePath(Box<[u8]>);

impl TreePath {
    /// The longest path, and the longest name in it, in bytes: as Linux has it.
    pub(crate) const MAX: usize = 4095;
    const NAME_MAX: usize = 255;

    pub(crate) fn new(path: impl Into<Vec<u8>>) -> Result<Self, BadPath> {
        let path = path.into();
        let is_name =
            |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= Self::NAME_MAX && !name.contains(&0);
        let is_path = path.len() <= Self::MAX && path.split(|byte| *byte == b'/').all(is_name);
        if is_path { Ok(Self(path.into())) } else { Err(BadPath(path)) }
    }

    /// The path of a name in a directory, or in the root.
    pub(crate) fn of(dir: Option<&Self>, name: &[u8]) -> Result<Self, BadPath> {
        Self::new(dir.map_or_else(|| name.to_vec(), |dir| [&dir.0, &b"/"[..], name].concat()))
    }

    /// The path of the directory, which is empty where that is the root, and the name in it.
    pub(crate) fn split(&self) -> (&[u8], &[u8]) {
        let slash = self.0.iter().rposition(|byte| *byte == b'/');
        let (dir, name) = self.0.split_at(slash.unwrap_or(0));
        (dir, name.strip_prefix(b"/").unwrap_or(name))
    }

    /// Whether it is a name in the root.
    pub(crate) fn is_top(&self) -> bool {
        self.split().0.is_empty()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_path(&self) -> &Path {
        as_path(&self.0)
    }
}

/// What is no path below a root, or too long for one.
#[derive(Debug)]
pub(crate) struct BadPath(pub(crate) Vec<u8>);

impl From<BadPath> for TransferError {
    fn from(BadPath(path): BadPath) -> Self {
        let start = as_path(path.get(..300).unwrap_or(&path));
        Self::Path { path: start.to_owned(), problem: "is no path of something inside of a folder" }
    }
}

impl std::borrow::Borrow<[u8]> for TreePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// A path, or what a link points to: a text in JSON, or its bytes where it is none. Bounded as [`TreePath`] is.
#[derive(Clone, Debug)]
pub(crate) struct RawPath(pub(crate) Vec<u8>);

impl RawPath {
    pub(crate) fn as_path(&self) -> &Path {
        as_path(&self.0)
    }
}

impl Serialize for RawPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => to.serialize_str(text),
            Err(_) => to.collect_seq(&self.0),
        }
    }
}

impl<'de> Deserialize<'de> for RawPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = RawPath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "at most {} bytes of a path", TreePath::MAX)
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<RawPath, E> {
                let is_short = text.len() <= TreePath::MAX;
                is_short.then(|| RawPath(text.into())).ok_or_else(|| E::invalid_length(text.len(), &self))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut bytes: A) -> Result<RawPath, A::Error> {
                let mut path = Vec::new();
                while let Some(byte) = bytes.next_element()? {
                    if path.len() == TreePath::MAX {
                        return Err(serde::de::Error::invalid_length(path.len() + 1, &self));
                    }
                    path.push(byte);
                }
                Ok(RawPath(path))
            }
        }
        from.deserialize_any(Reader)
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_names_alone() {
        for good in ["a", "a/b", "...", "a/.b", "-", " ", "\n", &"n".repeat(255), &["n"; 2048].join("/")] {
            assert!(TreePath::new(good).is_ok(), "{good:?}");
        }
        for bad in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "a/..",
            "../a",
            "a/./b",
            "\0",
            &"n".repeat(256),
            &"n/".repeat(2048),
        ] {
            assert!(TreePath::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(TreePath::new("a/b/c").unwrap().split(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(TreePath::new("a").unwrap().split(), (&b""[..], &b"a"[..]));
    }

    #[test]
    fn a_path_in_json_is_a_text_or_bytes() {
        for (bytes, json) in [(&b"gr\xc3\xb6\n"[..], r#""grö\n""#), (b"a\xff", "[97,255]"), (b"", r#""""#)] {
            assert_eq!(serde_json::to_string(&RawPath(bytes.to_vec())).unwrap(), json);
            assert_eq!(serde_json::from_str::<RawPath>(json).unwrap().0, bytes);
        }
        let long = "x".repeat(TreePath::MAX + 1);
        for bad in
            ["7", "null", "{}", "[256]", "[-1]", "[\"a\"]", &format!("{long:?}"), &format!("{:?}", long.as_bytes())]
        {
            assert!(serde_json::from_str::<RawPath>(bad).is_err(), "{bad}");
        }
    }
}
