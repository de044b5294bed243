//! Files outside of the store.

use std::path::Path;

use crate::store::Store;

impl Store {
    /// The store's directory.
    pub(crate) fn root(&self) -> &Path {
        self.open.inner.files.layout().root()
    }
}
