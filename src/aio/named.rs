//! The calls of named files.

use bytes::Bytes;
use futures_core::Stream;
use tokio::io::AsyncRead;

use crate::aio::arguments::calls;
use crate::aio::blob::Opened;
use crate::aio::target::{PutFile, Target, uploads};
use crate::aio::{AsyncBlob, AsyncStore, ContentSink, StreamError};
use crate::blobs::{Expect, NamedBlob, NamedFile, NamedRemoval, NamedWrite, PutNamed};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::id::{Lsn, UploadId};
use crate::keys::DomainName;
use crate::log::Durability;
use crate::page::Page;
use crate::store::NamedFiles;
#[cfg(doc)]
use crate::store::Store;
use crate::transaction::ExpectNamed;

/// [`NamedFiles`] for async programs: their calls never block the runtime. Made by [`AsyncStore::named`] and
/// [`AsyncStore::named_in`].
///
/// ```
/// use strongroom::aio::AsyncStore;
/// use strongroom::{Options, PutNamed};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
/// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
/// # runtime.block_on(async {
/// let files = store.named();
/// files.put("index/config.json", "{}", PutNamed::new()).await?;
/// let (file, blob) = files.get("index/config.json").await?;
/// assert_eq!((file.len, blob.bytes().await?), (2, "{}".into()));
/// assert_eq!(files.list("index/", None, 10).await?.items.len(), 1);
/// # Ok(()) })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct AsyncNamedFiles {
    // In this order: the store is closed by the handle that is dropped last, off the runtime.
    files: NamedFiles,
    store: AsyncStore,
}

impl AsyncStore {
    /// The named files of the default key domain: [`Store::named`].
    pub fn named(&self) -> AsyncNamedFiles {
        AsyncNamedFiles { files: self.blocking().named(), store: self.clone() }
    }

    /// The named files of a key domain.
    ///
    /// # Errors
    /// As [`Store::named_in`] and [`read`](Self::read).
    pub async fn named_in(&self, domain: &DomainName) -> Result<AsyncNamedFiles> {
        let domain = domain.clone();
        let files = self.read(move |store| store.named_in(&domain)).await?;
        Ok(AsyncNamedFiles { files, store: self.clone() })
    }
}

impl AsyncNamedFiles {
    /// The blocking handle.
    pub fn blocking(&self) -> &NamedFiles {
        &self.files
    }

    /// The same files, whose writes through the new handle return when this says.
    pub fn with_durability(&self, durability: Durability) -> Self {
        Self { files: self.files.with_durability(durability), store: self.store.clone() }
    }

    /// The same files, of which a replaced or removed one's content goes with the next collection:
    /// [`NamedFiles::discarding`].
    pub fn discarding(&self) -> Self {
        Self { files: self.files.discarding(), store: self.store.clone() }
    }

    fn parts(&self) -> (Target, &AsyncStore) {
        (Target::from(&self.files), &self.store)
    }

    /// Runs a blocking operation off the runtime, as [`AsyncStore::call`].
    ///
    /// # Errors
    /// As [`AsyncStore::call`].
    pub async fn call<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&NamedFiles) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let files = self.files.clone();
        self.store.call(move |_| work(&files)).await
    }

    /// Runs a blocking operation that only reads off the runtime, as [`AsyncStore::read`].
    ///
    /// # Errors
    /// As [`AsyncStore::read`].
    pub async fn read<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        work: impl FnOnce(&NamedFiles) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E> {
        let files = self.files.clone();
        self.store.read(move |_| work(&files)).await
    }

    /// Stores content under a name.
    ///
    /// # Errors
    /// As [`NamedFiles::put`] and [`call`](Self::call).
    pub async fn put(&self, name: &str, content: impl Into<Bytes>, put: PutNamed) -> Result<NamedWrite> {
        let (name, content) = (name.to_owned(), content.into());
        self.call(move |files| files.put(&name, content, put)).await
    }

    /// Sets a name to what a reader yields, to its end: [`put_sink`](Self::put_sink) for a reader.
    ///
    /// # Errors
    /// As [`put`](Self::put), and [`Error::Source`] where the reader fails: the name is as it was then.
    pub async fn put_reader(&self, name: &str, reader: impl AsyncRead, put: PutNamed) -> Result<NamedWrite> {
        self.put_sink(name, put).send_reader(reader).await
    }

    /// Sets a name to what a stream yields, to its end: [`put_sink`](Self::put_sink) for a stream.
    ///
    /// # Errors
    /// [`StreamError::Source`] where the stream fails: the name is as it was then. [`StreamError::Store`] as
    /// [`put`](Self::put).
    pub async fn put_stream<E>(
        &self,
        name: &str,
        content: impl Stream<Item = Result<Bytes, E>>,
        put: PutNamed,
    ) -> Result<NamedWrite, StreamError<E>> {
        self.put_sink(name, put).send_stream(content).await
    }

    /// A sink, and writer, whose content gets a name when it is [finished](ContentSink::finish). It holds no thread
    /// while nothing comes, and stores long content as [`AsyncStore::put_sink`] does.
    ///
    /// # Errors
    /// Come from the sink: as [`put`](Self::put).
    pub fn put_sink(&self, name: &str, put: PutNamed) -> ContentSink<NamedWrite> {
        let put = PutFile { files: self.files.clone(), name: name.to_owned(), put };
        ContentSink::put(self.parts(), put)
    }

    /// A file and its content, of one moment. Content of up to 64 KiB is read in the same step.
    ///
    /// # Errors
    /// As [`NamedFiles::get`] and [`read`](Self::read).
    pub async fn get(&self, name: &str) -> Result<(NamedFile, AsyncBlob)> {
        let name = name.to_owned();
        let get = move |files: &NamedFiles| {
            let NamedBlob { file, blob } = files.get(&name)?;
            Ok((file, Opened::from(blob)))
        };
        let (file, opened) = self.read(get).await?;
        Ok((file, AsyncBlob::opened(&self.store, opened)))
    }

    /// Gives a blob a name.
    ///
    /// # Errors
    /// As [`NamedFiles::set`] and [`call`](Self::call).
    pub async fn set(&self, name: &str, digest: &Digest, put: PutNamed) -> Result<NamedWrite> {
        let (name, digest) = (name.to_owned(), *digest);
        self.call(move |files| files.set(&name, &digest, put)).await
    }

    /// Commits an upload under a name.
    ///
    /// # Errors
    /// As [`NamedFiles::put_upload`] and [`call`](Self::call).
    pub async fn put_upload(
        &self,
        name: &str,
        id: UploadId,
        expect: impl Into<Expect>,
        put: PutNamed,
    ) -> Result<NamedWrite> {
        let (name, expect) = (name.to_owned(), expect.into());
        self.call(move |files| files.put_upload(&name, id, expect, put)).await
    }

    /// Removes files: each 1,000 of them in one commit, fewer where they hold very much.
    ///
    /// # Errors
    /// As [`NamedFiles::remove_many`] and [`call`](Self::call).
    pub async fn remove_many(&self, names: &[impl AsRef<str>]) -> Result<NamedRemoval> {
        let names: Vec<String> = names.iter().map(|name| name.as_ref().to_owned()).collect();
        self.call(move |files| files.remove_many(&names)).await
    }

    uploads!(NamedFiles);

    calls! { NamedFiles:
        /// What is known of a file.
        read stat(name: &str) -> NamedFile;
        /// Files whose names begin so, in order, a page at a time.
        read list(prefix: &str, after: Option<&str>, limit: usize) -> Page<NamedFile, String>;
        /// Removes a file.
        call remove(name: &str, expect: ExpectNamed) -> Lsn;
        /// Removes all files whose names begin so.
        call remove_prefix(prefix: &str) -> NamedRemoval;
    }
}
