//! Names of repositories and tags, parsed once: an invalid one can't exist.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::error::Error;
use crate::oci::wildcard;

/// A text type whose only constructor checks a rule.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $is_valid:path, $error:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                if $is_valid(text) {
                    return Ok(Self(text.to_owned()));
                }
                Err($error(text.chars().take(300).collect()))
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

checked_text! {
    /// The name of a repository, by the rule of the OCI distribution specification: parts of lower-case letters and
    /// digits, joined by `.`, `_`, `__` or dashes, between slashes; 256 characters at most. (Registries that promise
    /// Amazon ECR's rules refuse names of one character themselves.)
    ///
    /// ```
    /// use strongroom::registry::RepositoryName;
    ///
    /// let name: RepositoryName = "team-a/app.web".parse()?;
    /// assert_eq!(name.as_str(), "team-a/app.web");
    /// for bad in ["", "App", "a//b", "/a", "a/", "a..b", "a___b", "-a", "a b"] {
    ///     assert!(bad.parse::<RepositoryName>().is_err(), "{bad}");
    /// }
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    RepositoryName, is_repository_name, |name| Error::InvalidRepositoryName { name }
}

checked_text! {
    /// A tag, by the rule of the OCI distribution specification: 1 to 128 letters, digits, `_`, `.` and `-`, the first
    /// of which is neither `.` nor `-`.
    ///
    /// ```
    /// use strongroom::registry::Tag;
    ///
    /// assert!("v1.0_rc-2".parse::<Tag>().is_ok());
    /// assert!("-1".parse::<Tag>().is_err());
    /// ```
    Tag, is_tag, |tag| Error::InvalidTag { tag }
}

checked_text! {
    /// Which tags a rule is about: a tag, in which each `*` stands for any characters, none included. 1 to 128 letters,
    /// digits, `_`, `.`, `-` and `*`, as in Amazon ECR.
    ///
    /// ```
    /// use strongroom::registry::TagFilter;
    ///
    /// let filter: TagFilter = "dev-*".parse()?;
    /// assert!(filter.matches(&"dev-1".parse()?) && !filter.matches(&"prod-1".parse()?));
    /// # Ok::<(), strongroom::Error>(())
    /// ```
    TagFilter, is_tag_filter, |filter| Error::InvalidTagFilter { filter }
}

impl TagFilter {
    /// Whether a tag is one of those meant.
    pub fn matches(&self, tag: &Tag) -> bool {
        wildcard::matches(&self.0, tag.as_str())
    }
}

/// What names a manifest in a repository: a tag or a digest. Parsed as in the paths of the distribution API: what has a
/// colon is a digest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// What the tag points to now.
    Tag(Tag),
    /// The manifest itself.
    Digest(Digest),
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains(':') { text.parse().map(Self::Digest) } else { text.parse().map(Self::Tag) }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => tag.fmt(f),
            Self::Digest(digest) => digest.fmt(f),
        }
    }
}

impl From<Tag> for Reference {
    fn from(tag: Tag) -> Self {
        Self::Tag(tag)
    }
}

impl From<&Tag> for Reference {
    fn from(tag: &Tag) -> Self {
        Self::Tag(tag.clone())
    }
}

impl From<Digest> for Reference {
    fn from(digest: Digest) -> Self {
        Self::Digest(digest)
    }
}

impl From<&Digest> for Reference {
    fn from(digest: &Digest) -> Self {
        Self::Digest(*digest)
    }
}

fn is_repository_name(name: &str) -> bool {
    (1..=256).contains(&name.len()) && name.split('/').all(is_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = component.split(is_word).filter(|separator| !separator.is_empty());
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && separators
            .into_iter()
            .all(|separator| matches!(separator, "." | "_" | "__") || separator.chars().all(|c| c == '-'))
}

fn is_tag_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

fn is_tag(tag: &str) -> bool {
    (1..=128).contains(&tag.len()) && tag.chars().all(is_tag_character) && !tag.starts_with(['.', '-'])
}

fn is_tag_filter(filter: &str) -> bool {
    (1..=128).contains(&filter.len()) && filter.chars().all(|c| c == '*' || is_tag_character(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repository_names_follow_the_rule_of_oci() {
        let long = "a".repeat(256);
        for good in
            ["a", "0", "a/b", "ab", "a1/b2", "a.b", "a_b", "a__b", "a-b", "a---b", "0/1", "library/alpine", &long]
        {
            assert!(good.parse::<RepositoryName>().is_ok(), "{good}");
        }
        let too_long = "a".repeat(257);
        let bad =
            ["", "A", "/", "A/b", "a/", "/a", "a//b", "a.", ".a", "a..b", "a___b", "a_-b", "a-.b", "ä/b", "a b", "a\n"];
        for bad in bad.into_iter().chain([too_long.as_str()]) {
            assert!(matches!(bad.parse::<RepositoryName>(), Err(Error::InvalidRepositoryName { .. })), "{bad}");
        }
    }

    #[test]
    fn tags_follow_the_rule_of_oci() {
        let long = "t".repeat(128);
        for good in ["a", "_", "V1.0-b_c", &long] {
            assert!(good.parse::<Tag>().is_ok(), "{good}");
        }
        let too_long = "t".repeat(129);
        for bad in ["", ".a", "-a", "a/b", "a:b", "ü", "a b", &too_long] {
            assert!(matches!(bad.parse::<Tag>(), Err(Error::InvalidTag { .. })), "{bad}");
        }
    }

    #[test]
    fn filters_match_as_wildcards_do() {
        let matches = |filter: &str, tag: &str| filter.parse::<TagFilter>().unwrap().matches(&tag.parse().unwrap());
        for (filter, tag) in [("*", "a"), ("a*", "a"), ("*a", "ba"), ("a*c", "abc"), ("a*b*c", "a-b-b-c"), ("v1", "v1")]
        {
            assert!(matches(filter, tag), "{filter} {tag}");
        }
        for (filter, tag) in
            [("a*", "b"), ("a*a", "a"), ("a*b*c", "acb"), ("v1", "v10"), ("v1", "xv1"), ("*ab*", "a-b")]
        {
            assert!(!matches(filter, tag), "{filter} {tag}");
        }
    }
}
