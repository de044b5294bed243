//! JSON that all readers read alike.
//!
//! Parsers differ where a document is ambiguous: Go's matches a key in any case, and of two equal keys takes the last,
//! others the first. Such a manifest is one image to a registry and another one to its clients. So an [`Object`] knows
//! the keys that some reader gives a meaning to, accepts each of them once and as it is specified, and refuses keys
//! that differ from them in case only. Unknown keys, and their values, are skipped.
//!
//! Nothing here allocates more than what is kept, and nothing is kept of what is skipped.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::digest::Digest;
use crate::error::{Error, ManifestProblem, Result};

/// The most annotations of an object. Each takes more memory than its text has bytes, which is bounded by the document.
const MAX_ANNOTATIONS: usize = 1000;

/// The most references of a manifest, and so the most objects of a list.
pub(crate) const MAX_REFERENCES: usize = 10_000;

/// Reads a document that is one object.
pub(crate) fn parse<'de, T: Fields<'de>>(content: &'de [u8]) -> Result<T> {
    let invalid = |problem| Error::InvalidManifest { problem };
    // What is skipped is not looked at by the parser, but by others.
    let text = str::from_utf8(content).map_err(|error| {
        let sound = content.get(..error.valid_up_to()).unwrap_or_default();
        let lines = || sound.split(|byte| *byte == b'\n');
        let column = lines().next_back().map_or(1, |last| last.len() + 1);
        invalid(ManifestProblem::Syntax { line: lines().count(), column })
    })?;
    let reading = Reading::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let parsed = Object::new(&reading).deserialize(&mut deserializer);
    let parsed = parsed.and_then(|parsed| deserializer.end().map(|()| parsed));
    parsed.map_err(|error| {
        let syntax = ManifestProblem::Syntax { line: error.line(), column: error.column() };
        invalid(reading.0.take().unwrap_or(syntax))
    })
}

/// What is known of an object's fields.
pub(crate) trait Fields<'de>: Default {
    /// The keys that this reader, or another one, gives a meaning to.
    const KEYS: &'static [&'static str];

    /// Takes, or [skips](Value::skip), what stands under one of them.
    fn take<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error>;
}

/// Why a document is refused, other than for its syntax: parsers' errors have no place for that.
#[derive(Debug, Default)]
struct Reading(RefCell<Option<ManifestProblem>>);

impl Reading {
    fn refuse<E: serde::de::Error>(&self, problem: ManifestProblem) -> E {
        let error = E::custom(&problem);
        self.0.replace(Some(problem));
        error
    }
}

/// What stands under a key.
pub(crate) struct Value<'a, A> {
    reading: &'a Reading,
    map: &'a mut A,
}

impl<'de, A: MapAccess<'de>> Value<'_, A> {
    pub(crate) fn skip(self) -> Result<(), A::Error> {
        self.map.next_value::<IgnoredAny>().map(drop)
    }

    /// A text, or null.
    pub(crate) fn text(self) -> Result<Option<String>, A::Error> {
        self.map.next_value()
    }

    /// Whether it is anything but null.
    pub(crate) fn present(self) -> Result<bool, A::Error> {
        Ok(self.map.next_value::<Option<IgnoredAny>>()?.is_some())
    }

    /// A number as Go's `int64` has it and lengths are: a whole one, not negative; or null.
    pub(crate) fn length(self, field: &'static str) -> Result<Option<u64>, A::Error> {
        self.map.next_value_seed(Nullable(Length { reading: self.reading, field }))
    }

    pub(crate) fn digest(self) -> Result<Digest, A::Error> {
        self.map.next_value_seed(DigestText(self.reading))
    }

    /// An object, or null.
    pub(crate) fn object<T: Fields<'de>>(self) -> Result<Option<T>, A::Error> {
        self.map.next_value_seed(Nullable(Object::new(self.reading)))
    }

    /// A list of objects, or null.
    pub(crate) fn list<T: Fields<'de>>(self) -> Result<Option<Vec<T>>, A::Error> {
        self.map.next_value_seed(Nullable(List(Object::new(self.reading))))
    }

    /// An object of texts under free names; none, where it is null.
    pub(crate) fn annotations(self) -> Result<BTreeMap<String, String>, A::Error> {
        Ok(self.map.next_value_seed(Nullable(Annotations(self.reading)))?.unwrap_or_default())
    }
}

struct Object<'a, T> {
    reading: &'a Reading,
    fields: PhantomData<T>,
}

impl<'a, T> Object<'a, T> {
    fn new(reading: &'a Reading) -> Self {
        Self { reading, fields: PhantomData }
    }
}

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for Object<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for Object<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let reading = self.reading;
        let mut fields = T::default();
        let mut seen = Vec::new();
        while let Some(known) = map.next_key_seed(KnownKey { reading, keys: T::KEYS })? {
            match known {
                Some(key) if seen.contains(&key) => return Err(A::Error::duplicate_field(key)),
                Some(key) => {
                    seen.push(key);
                    fields.take(key, Value { reading, map: &mut map })?;
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// Tells which of the known keys a key is.
struct KnownKey<'a> {
    reading: &'a Reading,
    keys: &'static [&'static str],
}

impl<'de> DeserializeSeed<'de> for KnownKey<'_> {
    type Value = Option<&'static str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KnownKey<'_> {
    type Value = Option<&'static str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, found: &str) -> Result<Self::Value, E> {
        let like = self.keys.iter().copied().find(|key| is_like(key, found));
        match like {
            Some(key) if key != found => {
                let found = found.chars().take(200).collect();
                Err(self.reading.refuse(ManifestProblem::Ambiguous { key, found }))
            }
            known => Ok(known),
        }
    }
}

/// Whether Go's parser takes a key for this one. It folds case as Unicode does, by which two more characters than the
/// ASCII letters are letters of ASCII.
fn is_like(key: &str, found: &str) -> bool {
    let folded = found.chars().map(|c| match c {
        'ſ' => 's',
        '\u{212a}' => 'k', // the sign for kelvin
        other => other.to_ascii_lowercase(),
    });
    key.chars().map(|c| c.to_ascii_lowercase()).eq(folded)
}

/// What may be null instead.
struct Nullable<S>(S);

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_option(self)
    }
}

impl<'de, S: DeserializeSeed<'de>> Visitor<'de> for Nullable<S> {
    type Value = Option<S::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(deserializer).map(Some)
    }
}

struct List<'a, T>(Object<'a, T>);

impl<'de, T: Fields<'de>> DeserializeSeed<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de, T: Fields<'de>> Visitor<'de> for List<'_, T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        let mut list = Vec::new();
        while let Some(object) = seq.next_element_seed(Object::new(self.0.reading))? {
            if list.len() == MAX_REFERENCES {
                return Err(self.0.reading.refuse(ManifestProblem::TooMany));
            }
            list.push(object);
        }
        Ok(list)
    }
}

struct Length<'a> {
    reading: &'a Reading,
    field: &'static str,
}

impl<'de> DeserializeSeed<'de> for Length<'_> {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Length<'_> {
    fn refuse<E: serde::de::Error>(&self) -> E {
        self.reading.refuse(ManifestProblem::Field { field: self.field })
    }
}

impl Visitor<'_> for Length<'_> {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a length in bytes")
    }

    fn visit_u64<E: serde::de::Error>(self, length: u64) -> Result<u64, E> {
        if i64::try_from(length).is_ok() { Ok(length) } else { Err(self.refuse()) }
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<u64, E> {
        Err(self.refuse())
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<u64, E> {
        Err(self.refuse())
    }
}

struct DigestText<'a>(&'a Reading);

impl<'de> DeserializeSeed<'de> for DigestText<'_> {
    type Value = Digest;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Digest, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for DigestText<'_> {
    type Value = Digest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a digest")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Digest, E> {
        text.parse().map_err(|_| self.0.refuse(ManifestProblem::Digest { digest: text.chars().take(200).collect() }))
    }
}

struct Annotations<'a>(&'a Reading);

impl<'de> DeserializeSeed<'de> for Annotations<'_> {
    type Value = BTreeMap<String, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Annotations<'_> {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut annotations = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, String>()? {
            if annotations.len() == MAX_ANNOTATIONS {
                return Err(self.0.refuse(ManifestProblem::Annotations));
            }
            match annotations.entry(name) {
                Entry::Vacant(vacant) => drop(vacant.insert(value)),
                Entry::Occupied(_) => return Err(A::Error::custom("an annotation stands there twice")),
            }
        }
        Ok(annotations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Sample {
        size: Option<u64>,
        inner: Vec<Sample>,
        annotations: BTreeMap<String, String>,
    }

    impl<'de> Fields<'de> for Sample {
        const KEYS: &'static [&'static str] = &["size", "inner", "annotations", "skip", "links"];

        fn take<A: MapAccess<'de>>(&mut self, key: &str, value: Value<'_, A>) -> Result<(), A::Error> {
            match key {
                "size" => self.size = value.length("size")?,
                "inner" => self.inner = value.list()?.unwrap_or_default(),
                "annotations" => self.annotations = value.annotations()?,
                _ => value.skip()?,
            }
            Ok(())
        }
    }

    fn problem(content: &[u8]) -> ManifestProblem {
        match parse::<Sample>(content) {
            Err(Error::InvalidManifest { problem }) => problem,
            other => panic!("{}: {other:?}", String::from_utf8_lossy(content)),
        }
    }

    #[test]
    fn what_everybody_reads_alike_is_taken() {
        let content = r#"{"other":{"Size":1,"size":[{}]},"size":7,"inner":[{"size":null},{"inner":null}],"skip":1e999,
            "annotations":{"a":"b","A":"c"}}"#;
        let sample = parse::<Sample>(content.as_bytes()).unwrap();
        assert_eq!((sample.size, sample.inner.len()), (Some(7), 2));
        assert_eq!(sample.annotations["A"], "c");
        assert_eq!(parse::<Sample>(br#"{"size":9223372036854775807}"#).unwrap().size, Some(i64::MAX as u64));
    }

    #[test]
    fn keys_in_another_case_are_refused_wherever_they_stand() {
        for found in ["Size", "SIZE", "\\u0053ize", "ſize", "\u{17f}IZE", "sKip", "s\u{212a}ip", "lin\u{212a}ſ"] {
            for content in [format!(r#"{{"{found}":1}}"#), format!(r#"{{"inner":[{{}},{{"size":1,"{found}":null}}]}}"#)]
            {
                assert!(matches!(problem(content.as_bytes()), ManifestProblem::Ambiguous { .. }), "{content}");
            }
        }
        assert!(parse::<Sample>(br#"{"sizes":1,"Siz":2,"\u00dfize":3}"#).is_ok());
    }

    #[test]
    fn what_stands_there_twice_or_is_no_text_or_no_length_is_refused() {
        for content in [
            r#"{"size":1,"size":1}"#,
            r#"{"skip":1,"skip":1}"#,
            r#"{"annotations":{"a":"b","a":"b"}}"#,
            r#"{"annotations":{"a":1}}"#,
            r#"{"annotations":{"a":null}}"#,
            r#"{"annotations":["a"]}"#,
            r#"{"size":"1"}"#,
            r#"[1]"#,
            r#"{}{}"#,
            r#""#,
        ] {
            assert!(matches!(problem(content.as_bytes()), ManifestProblem::Syntax { .. }), "{content}");
        }
        for size in ["-1", "1.0", "1e3", "-0.0", "9223372036854775808", "18446744073709551616"] {
            let content = format!(r#"{{"size":{size}}}"#);
            assert!(matches!(problem(content.as_bytes()), ManifestProblem::Field { field: "size" }), "{content}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_also_where_they_would_be_skipped() {
        assert_eq!(problem(b"{\n\"other\":\"\xff\"}"), ManifestProblem::Syntax { line: 2, column: 10 });
    }

    #[test]
    fn annotations_are_few() {
        let many = |count: usize| {
            let all: Vec<String> = (0..count).map(|n| format!(r#""{n}":"""#)).collect();
            format!(r#"{{"annotations":{{{}}}}}"#, all.join(","))
        };
        assert!(parse::<Sample>(many(MAX_ANNOTATIONS).as_bytes()).is_ok());
        assert_eq!(problem(many(MAX_ANNOTATIONS + 1).as_bytes()), ManifestProblem::Annotations);
    }
}
