//! The wire of the services: operations, the shapes that they take and answer with, and their errors.
//!
//! `ecr.model` and `ecr-public.model` are the one table of what members an input has, and what is allowed for them.
//! [`check`] holds inputs against it before anything else looks at them, so that operations take what is in range.
//! `tests/ecr/model.py` fails where the tables differ from the model of AWS's own clients.

mod check;

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

pub use check::Invalid;

/// A service: what its requests name in `X-Amz-Target`, and its name in signatures.
#[derive(Debug)]
pub struct Model {
    pub target: &'static str,
    pub signing: &'static str,
    operations: HashMap<&'static str, Operation>,
    shapes: HashMap<&'static str, Shape>,
}

/// An operation.
#[derive(Debug)]
pub struct Operation {
    pub name: &'static str,
    pub input: &'static str,
    pub output: &'static str,
    pub errors: Vec<&'static str>,
}

/// A member of a structure.
#[derive(Debug)]
struct Member {
    name: &'static str,
    shape: &'static str,
    is_required: bool,
}

/// How long something is, or how large.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    min: Option<i64>,
    max: Option<i64>,
}

#[derive(Debug)]
enum Shape {
    Structure(Vec<Member>),
    List { bounds: Bounds, of: &'static str },
    Map { value: &'static str },
    Enum(Vec<&'static str>),
    String { bounds: Bounds, pattern: Option<(&'static str, Regex)> },
    Blob(Bounds),
    Integer(Bounds),
    Double,
    Boolean,
    Timestamp,
}

pub static ECR: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("ecr.model")));
pub static ECR_PUBLIC: LazyLock<Model> = LazyLock::new(|| Model::parse(include_str!("ecr-public.model")));

impl Model {
    pub fn operation(&self, name: &str) -> Option<&Operation> {
        self.operations.get(name)
    }

    /// The names of all operations, in order.
    pub fn operations(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.operations.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// Parses a table; a line that it can't be is left out, and a test sees that none is.
    fn parse(text: &'static str) -> Self {
        let mut model = Self { target: "", signing: "", operations: HashMap::new(), shapes: HashMap::new() };
        for entry in entries(text) {
            model.add(&entry);
        }
        model
    }

    fn add(&mut self, entry: &[&'static str]) -> Option<()> {
        let (kind, rest) = entry.split_first()?;
        let (name, rest) = rest.split_first()?;
        let name = name.trim_end_matches(':');
        match *kind {
            "target" => self.target = name,
            "signing" => self.signing = name,
            "operation" => {
                let [input, output, errors @ ..] = rest else { return None };
                let errors = errors.to_vec();
                let operation = Operation { name, input, output: output.trim_end_matches(':'), errors };
                self.operations.insert(name, operation);
            }
            _ => {
                self.shapes.insert(name, Shape::parse(kind, rest)?);
            }
        }
        Some(())
    }
}

/// The entries of a table as words. One goes on where the next line is indented.
fn entries(text: &'static str) -> Vec<Vec<&'static str>> {
    let mut entries: Vec<Vec<&str>> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let words = line.split_whitespace();
        match entries.last_mut() {
            Some(last) if line.starts_with(' ') => last.extend(words),
            _ => entries.push(words.collect()),
        }
    }
    entries
}

impl Shape {
    fn parse(kind: &str, words: &[&'static str]) -> Option<Self> {
        let bounds = words.first().and_then(|word| Bounds::parse(word));
        let words = words.get(usize::from(bounds.is_some())..).unwrap_or_default();
        let bounds = bounds.unwrap_or_default();
        Some(match kind {
            "structure" | "error" | "fault" => {
                let member = |pair: &[&'static str]| {
                    let [name, shape] = pair else { return None };
                    let (name, is_required) = name.strip_suffix('!').map_or((*name, false), |name| (name, true));
                    Some(Member { name, shape: shape.trim_end_matches(','), is_required })
                };
                Self::Structure(words.chunks(2).map(member).collect::<Option<_>>()?)
            }
            "list" => Self::List { bounds, of: words.first()? },
            "map" => Self::Map { value: words.get(1)? },
            "enum" => Self::Enum(words.to_vec()),
            "string" => {
                let text = words.first().map(|word| word.trim_matches('/'));
                // A pattern is of all of the text, whether it says so or not.
                let pattern = text.map(|text| Some((text, Regex::new(&format!("^(?:{text})$")).ok()?)));
                Self::String { bounds, pattern: pattern.map_or(Some(None), |one| one.map(Some))? }
            }
            "blob" => Self::Blob(bounds),
            "integer" | "long" => Self::Integer(bounds),
            "double" => Self::Double,
            "boolean" => Self::Boolean,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }
}

impl Bounds {
    fn parse(word: &str) -> Option<Self> {
        let (min, max) = word.split_once("..")?;
        let bound = |text: &str| if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) };
        Some(Self { min: bound(min)?, max: bound(max)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_tables_is_understood_and_every_shape_is_there() {
        for (text, model) in [(include_str!("ecr.model"), &*ECR), (include_str!("ecr-public.model"), &*ECR_PUBLIC)] {
            assert_eq!(entries(text).len(), 2 + model.operations.len() + model.shapes.len(), "{}", model.target);
            for shape in model.shapes.values() {
                let names: Vec<_> = match shape {
                    Shape::Structure(members) => members.iter().map(|member| member.shape).collect(),
                    Shape::List { of, .. } => vec![*of],
                    Shape::Map { value } => vec![*value],
                    _ => Vec::new(),
                };
                assert!(names.iter().all(|name| model.shapes.contains_key(name)), "{shape:?}");
            }
            for operation in model.operations.values() {
                let names = [operation.input, operation.output].into_iter().chain(operation.errors.iter().copied());
                names.for_each(|name| assert!(model.shapes.contains_key(name), "{name}"));
            }
        }
        assert_eq!((ECR.operations.len(), ECR_PUBLIC.operations.len()), (62, 23));
    }
}
