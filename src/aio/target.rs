//! Where content goes and comes from: a repository, or the store.

use std::ops::Deref;

use crate::blobs::{BlobStore, Destination, Expect, NamedWrite, PutNamed, Stored};
use crate::digest::Algorithm;
use crate::error::Result;
use crate::id::UploadId;
use crate::log::Durability;
use crate::registry::Repository;
use crate::store::{NamedFiles, Store};

/// A blocking handle.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Store(Store),
    Repository(Repository),
    Named(NamedFiles),
}

impl From<&Store> for Target {
    fn from(store: &Store) -> Self {
        Self::Store(store.clone())
    }
}

impl From<&Repository> for Target {
    fn from(repository: &Repository) -> Self {
        Self::Repository(repository.clone())
    }
}

impl From<&NamedFiles> for Target {
    fn from(files: &NamedFiles) -> Self {
        Self::Named(files.clone())
    }
}

/// It keeps the store open for what is done with its blobs.
impl Deref for Target {
    type Target = BlobStore;

    fn deref(&self) -> &BlobStore {
        match self {
            Self::Store(store) => store.blob_store(),
            Self::Repository(repository) => repository.blob_store(),
            Self::Named(files) => files.blob_store(),
        }
    }
}

impl Target {
    /// Calls back with what says where content goes.
    pub(super) fn with<T>(&self, work: impl FnOnce(&dyn Destination) -> Result<T>) -> Result<T> {
        match self {
            Self::Store(store) => work(&store.outside()?),
            Self::Repository(repository) => work(repository),
            Self::Named(files) => work(&files.destination()?),
        }
    }

    pub(super) fn with_durability(&self, durability: Durability) -> Self {
        match self {
            Self::Store(store) => Self::Store(store.with_durability(durability)),
            Self::Repository(repository) => Self::Repository(repository.with_durability(durability)),
            Self::Named(files) => Self::Named(files.with_durability(durability)),
        }
    }

    pub(super) fn begin_upload(&self, algorithm: Algorithm) -> Result<UploadId> {
        self.with(|into| self.deref().begin_upload(algorithm, into))
    }

    pub(super) fn cancel_upload(&self, id: UploadId) -> Result<()> {
        self.with(|into| self.deref().cancel_upload(id, into))
    }
}

/// What is made of content, once all of it has come.
pub(super) trait Put: Clone + Send + Sync + 'static {
    type Done: Send + 'static;

    fn algorithm(&self) -> Algorithm;

    /// Stores content in memory.
    fn put(&self, into: &Target, content: &[u8]) -> Result<Self::Done>;

    /// Stores the content of an upload, which ends with that.
    fn commit(&self, into: &Target, id: UploadId) -> Result<Self::Done>;
}

/// A blob.
impl Put for Expect {
    type Done = Stored;

    fn algorithm(&self) -> Algorithm {
        Self::algorithm(*self)
    }

    fn put(&self, into: &Target, content: &[u8]) -> Result<Stored> {
        into.with(|to| into.deref().put(content, *self, to))
    }

    fn commit(&self, into: &Target, id: UploadId) -> Result<Stored> {
        into.with(|to| into.deref().commit_upload(id, *self, to))
    }
}

/// A named file.
#[derive(Clone)]
pub(super) struct PutFile {
    pub(super) files: NamedFiles,
    pub(super) name: String,
    pub(super) put: PutNamed,
}

impl Put for PutFile {
    type Done = NamedWrite;

    fn algorithm(&self) -> Algorithm {
        self.put.content().algorithm()
    }

    fn put(&self, _: &Target, content: &[u8]) -> Result<NamedWrite> {
        self.files.put(&self.name, content, self.put.clone())
    }

    fn commit(&self, _: &Target, id: UploadId) -> Result<NamedWrite> {
        self.files.put_upload(&self.name, id, self.put.content(), self.put.clone())
    }
}

/// The calls that read and store content, which stores and repositories both have.
macro_rules! content {
    ($blocking:ident) => {
        /// Opens a blob for reading. One of up to 64 KiB is read in the same step.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::get`] and [`read`](crate::aio::AsyncStore::read).")]
        pub async fn get(&self, digest: &$crate::digest::Digest) -> $crate::error::Result<$crate::aio::AsyncBlob> {
            let digest = *digest;
            let opened = self.read(move |blocking| blocking.get(&digest).map($crate::aio::blob::Opened::from)).await?;
            Ok($crate::aio::AsyncBlob::opened(self.parts().1, opened))
        }

        /// Stores content, and returns its digest and what became of it.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::put`] and [`call`](crate::aio::AsyncStore::call).")]
        pub async fn put(
            &self,
            content: impl Into<bytes::Bytes>,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::error::Result<$crate::blobs::Stored> {
            let (content, expect) = (content.into(), expect.into());
            self.call(move |blocking| blocking.put(content, expect)).await
        }

        /// Stores contents, all of them in one commit.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::put_many`] and [`call`](crate::aio::AsyncStore::call).")]
        pub async fn put_many<C: Into<bytes::Bytes>, E: Into<$crate::blobs::Expect>>(
            &self,
            contents: impl IntoIterator<Item = (C, E)>,
        ) -> $crate::error::Result<Vec<$crate::error::Result<$crate::blobs::Stored>>> {
            let own = |(content, expect): (C, E)| (content.into(), expect.into());
            let contents: Vec<(bytes::Bytes, $crate::blobs::Expect)> = contents.into_iter().map(own).collect();
            self.call(move |blocking| blocking.put_many(contents)).await
        }

        /// Opens blobs for reading, in one step. Those of up to 64 KiB are read in it.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::get_many`] and [`read`](crate::aio::AsyncStore::read).")]
        pub async fn get_many(
            &self,
            digests: &[$crate::digest::Digest],
        ) -> $crate::error::Result<Vec<$crate::error::Result<$crate::aio::AsyncBlob>>> {
            let digests = digests.to_vec();
            let get_many = move |blocking: &$blocking| {
                let blobs = blocking.get_many(&digests)?.into_iter();
                Ok(blobs.map(|blob| blob.map($crate::aio::blob::Opened::from)).collect::<Vec<_>>())
            };
            let (store, blobs) = (self.parts().1, self.read(get_many).await?.into_iter());
            Ok(blobs.map(|blob| blob.map(|opened| $crate::aio::AsyncBlob::opened(store, opened))).collect())
        }

        /// Stores a file by its path: on a file system that can share extents, without writing its content again.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::put_file`] and [`call`](crate::aio::AsyncStore::call).")]
        pub async fn put_file(
            &self,
            path: impl AsRef<std::path::Path>,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::error::Result<$crate::blobs::Stored> {
            let (path, expect) = (path.as_ref().to_owned(), expect.into());
            self.call(move |blocking| blocking.put_file(path, expect)).await
        }

        /// Stores what a reader yields, to its end: [`put_sink`](Self::put_sink) for a reader.
        ///
        /// # Errors
        /// As [`put`](Self::put), and [`Error::Source`](crate::Error::Source) where the reader fails: nothing is stored
        /// then.
        pub async fn put_reader(
            &self,
            reader: impl tokio::io::AsyncRead,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::error::Result<$crate::blobs::Stored> {
            self.put_sink(expect).send_reader(reader).await
        }

        /// Stores what a stream yields, to its end: [`put_sink`](Self::put_sink) for a stream.
        ///
        /// # Errors
        /// [`StreamError::Source`](crate::aio::StreamError::Source) where the stream fails: nothing is stored then.
        /// [`StreamError::Store`](crate::aio::StreamError::Store) as [`put`](Self::put).
        pub async fn put_stream<E>(
            &self,
            content: impl futures_core::Stream<Item = Result<bytes::Bytes, E>>,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> Result<$crate::blobs::Stored, $crate::aio::StreamError<E>> {
            self.put_sink(expect).send_stream(content).await
        }

        /// A sink, and writer, for content that is stored when it is [finished](crate::aio::ContentSink::finish). It
        /// holds no thread while nothing comes.
        ///
        /// Content of up to 1 MiB is stored in one step when all of it has come. Longer content is written as it comes,
        /// to an upload that is committed in the end and cancelled where the content breaks off; one that neither
        /// became of, since the process or the runtime ended before, expires as uploads do.
        ///
        /// # Errors
        /// Come from the sink: as [`put`](Self::put).
        pub fn put_sink(
            &self,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::aio::ContentSink<$crate::blobs::Stored> {
            $crate::aio::ContentSink::put(self.parts(), expect.into())
        }

        /// Commits an upload as a blob, if its content is what is expected.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::commit_upload`] and [`call`](Self::call).")]
        pub async fn commit_upload(
            &self,
            id: $crate::id::UploadId,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::error::Result<$crate::blobs::Stored> {
            let expect = expect.into();
            self.call(move |blocking| blocking.commit_upload(id, expect)).await
        }

        /// Appends the last piece of an upload, and commits the upload.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::commit_upload_with`] and [`call`](Self::call).")]
        pub async fn commit_upload_with(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
            last: impl Into<bytes::Bytes>,
            expect: impl Into<$crate::blobs::Expect>,
        ) -> $crate::error::Result<$crate::blobs::Stored> {
            let (offset, last, expect) = (offset.into(), last.into(), expect.into());
            self.call(move |blocking| blocking.commit_upload_with(id, offset, last, expect)).await
        }

        $crate::aio::target::uploads!($blocking);

        $crate::aio::arguments::calls! { $blocking:
            /// The unfinished uploads, a page at a time.
            read uploads(
                after: Option<&$crate::id::UploadId>,
                limit: usize
            ) -> $crate::page::Page<$crate::blobs::UploadStatus, $crate::id::UploadId>;
        }
    };
}

/// The calls that write uploads, which stores, repositories and named files have.
macro_rules! uploads {
    ($blocking:ident) => {
        /// Appends content to an upload at `offset`, or where it ends for none, and returns the new length.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::append_upload`] and")]
        /// [`call`](crate::aio::AsyncStore::call).
        pub async fn append_upload(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
            content: impl Into<bytes::Bytes>,
        ) -> $crate::error::Result<u64> {
            let (offset, content) = (offset.into(), content.into());
            self.call(move |blocking| blocking.append_upload(id, offset, content)).await
        }

        /// Appends what a reader yields to an upload: [`append_sink`](Self::append_sink) for a reader.
        ///
        /// # Errors
        #[doc = concat!("As [`", stringify!($blocking), "::append_upload_from`].")]
        pub async fn append_upload_from(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
            reader: impl tokio::io::AsyncRead,
        ) -> $crate::error::Result<u64> {
            self.append_sink(id, offset).send_reader(reader).await
        }

        /// Appends what a stream yields to an upload: [`append_sink`](Self::append_sink) for a stream.
        ///
        /// # Errors
        /// [`StreamError::Source`](crate::aio::StreamError::Source) where the stream fails: what came before stays
        /// appended. [`StreamError::Store`](crate::aio::StreamError::Store) as
        /// [`append_upload_from`](Self::append_upload_from).
        pub async fn append_upload_stream<E>(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
            content: impl futures_core::Stream<Item = Result<bytes::Bytes, E>>,
        ) -> Result<u64, $crate::aio::StreamError<E>> {
            self.append_sink(id, offset).send_stream(content).await
        }

        /// A sink, and writer, that appends to an upload at `offset`, or where it ends for none, and gives the length
        /// that the upload then has. It holds no thread while nothing comes.
        ///
        /// # Errors
        #[doc = concat!("Come from the sink: as [`", stringify!($blocking), "::append_upload_from`]'s, and")]
        /// [`Error::Closed`](crate::Error::Closed). A sink that is dropped leaves the upload where what came before
        /// ends, or further back; `upload_status` tells. Without an offset, one that is dropped before its turn has
        /// come appends nothing: what another request appends meanwhile is not followed by what nobody sends any more.
        pub fn append_sink(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
        ) -> $crate::aio::ContentSink<u64> {
            $crate::aio::ContentSink::append(self.upload_writer(id, offset))
        }

        /// A writer that appends to an upload at `offset`, or where it ends for none, for programs that count the
        /// memory of what they receive. Nothing is done before something is written.
        ///
        /// ```
        /// # use strongroom::{Algorithm, Options, aio::AsyncStore};
        /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
        /// # let dir = tempfile::tempdir()?;
        /// # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        /// # let store = AsyncStore::new(Options::new().create(true).open(dir.path())?);
        /// # runtime.block_on(async {
        /// let id = store.begin_upload(Algorithm::Sha256).await?;
        /// let mut writer = store.upload_writer(id, 0);
        /// writer.write(["two ".into(), "pieces".into()]).await?;
        /// assert_eq!(writer.finish().await?, 10);
        /// # Ok(()) })
        /// # }
        /// ```
        pub fn upload_writer(
            &self,
            id: $crate::id::UploadId,
            offset: impl Into<Option<u64>>,
        ) -> $crate::aio::UploadWriter {
            $crate::aio::UploadWriter::new(self.parts(), id, offset.into())
        }

        $crate::aio::arguments::calls! { $blocking:
            /// Begins an upload whose digest is computed with this algorithm.
            call begin_upload(algorithm: $crate::digest::Algorithm) -> $crate::id::UploadId;
            /// The status of an upload: how much of it is durable, and more.
            read upload_status(id: $crate::id::UploadId) -> $crate::blobs::UploadStatus;
            /// Cancels an upload: its content is removed.
            call cancel_upload(id: $crate::id::UploadId) -> ();
            /// How many uploads are unfinished, counted up to a limit.
            read count_uploads(limit: usize) -> usize;
        }
    };
}

pub(super) use {content, uploads};
