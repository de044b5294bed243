//! Pages: a part of a list that may be long, and where the next part begins.

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

impl<T, C> Page<T, C> {
    /// A page of these items.
    pub(crate) fn new(items: Vec<T>, next: Option<C>) -> Self {
        Self { items, next }
    }
}
