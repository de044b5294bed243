//! Pages: a part of a list that may be long, and where the next part begins.

use std::str::FromStr;

use crate::error::{Error, Result};

/// A page of a list.
///
/// Calls that list take the cursor behind which the page begins, none for the first, and how many items it has at most
/// (0 counts as 1). A page may have fewer, or none, although others follow: the end is where there is no `next`.
///
/// ```
/// # use strongroom::{Algorithm, Options};
/// # let dir = tempfile::tempdir()?;
/// # let store = Options::new().create(true).open(dir.path())?;
/// # for _ in 0..3 {
/// #     store.begin_upload(Algorithm::Sha256)?;
/// # }
/// let mut uploads = Vec::new();
/// let mut after = None;
/// loop {
///     let page = store.uploads(after.as_ref(), 2)?;
///     uploads.extend(page.items.into_iter().map(|upload| upload.id));
///     after = page.next;
///     if after.is_none() {
///         break;
///     }
/// }
/// assert_eq!(uploads.len(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T, C> {
    /// The items, in order.
    pub items: Vec<T>,
    /// The cursor behind which the next page begins; none where the list ends here.
    pub next: Option<C>,
}

/// An empty list.
impl<T, C> Default for Page<T, C> {
    fn default() -> Self {
        Self { items: Vec::new(), next: None }
    }
}

impl<T, C> Page<T, C> {
    /// All items of a list, read page by page: `list` is called with the cursor behind which the next page begins. An
    /// error ends it.
    ///
    /// ```
    /// use strongroom::registry::RepositorySettings;
    /// use strongroom::{Error, Options, Page};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// # let store = Options::new().create(true).open(dir.path())?;
    /// for name in ["team/a", "team/b", "team/c"] {
    ///     store.create_repository(&name.parse()?, RepositorySettings::new())?;
    /// }
    /// let names = Page::all(|after: Option<&String>| store.repositories(after.map(String::as_str), 2));
    /// assert_eq!(names.collect::<Result<Vec<_>, Error>>()?.len(), 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn all(mut list: impl FnMut(Option<&C>) -> Result<Self>) -> impl Iterator<Item = Result<T>> {
        let (mut items, mut next, mut is_first) = (Vec::new().into_iter(), None, true);
        std::iter::from_fn(move || {
            loop {
                if let Some(item) = items.next() {
                    return Some(Ok(item));
                }
                if !std::mem::take(&mut is_first) && next.is_none() {
                    return None;
                }
                match list(next.take().as_ref()) {
                    Ok(page) => (items, next) = (page.items.into_iter(), page.next),
                    Err(error) => return Some(Err(error)),
                }
            }
        })
    }

    /// A page of these items.
    pub(crate) fn new(items: Vec<T>, next: Option<C>) -> Self {
        Self { items, next }
    }

    /// The first page of items that are read one by one, and one more than it has.
    pub(crate) fn collect(
        items: impl IntoIterator<Item = Result<T>>,
        limit: usize,
        cursor: impl Fn(&T) -> C,
    ) -> Result<Self> {
        let limit = limit.max(1);
        let read = items.into_iter().take(limit.saturating_add(1));
        let mut items = read.collect::<Result<Vec<T>>>()?;
        let is_more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| is_more).map(cursor);
        Ok(Self { items, next })
    }
}

impl<T: FromStr<Err = Error> + ToString> Page<T, String> {
    /// A page of names: `read` reads as many of them as it is told, one more than the page has.
    pub(crate) fn of_names(limit: usize, read: impl FnOnce(usize) -> Result<Vec<String>>) -> Result<Self> {
        let names = read(limit.max(1).saturating_add(1))?;
        Self::collect(names.iter().map(|name| name.parse()), limit, T::to_string)
    }
}
