//! Calls that are passed on to a blocking handle, with arguments that a thread can keep.

use std::borrow::Borrow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::digest::Algorithm;
use crate::id::{Lsn, UploadId};
use crate::keys::KeyProvider;
use crate::oci::{ExpectDocument, ExpectTag, RepositorySettings};
use crate::registry::{RepositoryDeletion, StorageClass};
use crate::transaction::ExpectNamed;

/// An argument of a call: what is borrowed is copied or cloned, once, for the thread that carries the call out.
pub(super) trait Argument {
    type Kept: Send + 'static;

    /// As the blocking call takes it.
    type Lent<'a>;

    fn keep(self) -> Self::Kept;

    fn lend(kept: &Self::Kept) -> Self::Lent<'_>;
}

impl<T: ?Sized + ToOwned<Owned: Send + 'static> + 'static> Argument for &T {
    type Kept = T::Owned;
    type Lent<'a> = &'a T;

    fn keep(self) -> T::Owned {
        self.to_owned()
    }

    fn lend(kept: &T::Owned) -> &T {
        kept.borrow()
    }
}

impl<T: ?Sized + ToOwned<Owned: Send + 'static> + 'static> Argument for Option<&T> {
    type Kept = Option<T::Owned>;
    type Lent<'a> = Option<&'a T>;

    fn keep(self) -> Option<T::Owned> {
        self.map(ToOwned::to_owned)
    }

    fn lend(kept: &Option<T::Owned>) -> Option<&T> {
        kept.as_ref().map(Borrow::borrow)
    }
}

macro_rules! by_value {
    ($($type:ty),*) => {$(
        impl Argument for $type {
            type Kept = Self;
            type Lent<'a> = Self;

            fn keep(self) -> Self {
                self
            }

            fn lend(kept: &Self) -> Self {
                kept.clone()
            }
        }
    )*};
}

by_value!(
    Algorithm,
    Arc<dyn KeyProvider>,
    Bytes,
    Duration,
    ExpectDocument,
    ExpectNamed,
    ExpectTag,
    Lsn,
    Option<u64>,
    RepositoryDeletion,
    RepositorySettings,
    StorageClass,
    UploadId,
    u64,
    usize
);

/// Async calls that do what the calls of these names of a blocking handle do: `read` those that only read, and `call`
/// those that may commit.
macro_rules! calls {
    ($blocking:ident: $($(#[$doc:meta])* $kind:ident $name:ident($($arg:ident: $type:ty),*) -> $output:ty;)*) => {$(
        $(#[$doc])*
        ///
        /// # Errors
        #[doc = concat!(
            "As [`", stringify!($blocking), "::", stringify!($name), "`], which this calls off the runtime, and [`",
            stringify!($kind), "`](crate::aio::AsyncStore::", stringify!($kind), ")."
        )]
        pub async fn $name(&self $(, $arg: $type)*) -> $crate::error::Result<$output> {
            $(let $arg = <$type as $crate::aio::arguments::Argument>::keep($arg);)*
            self.$kind(move |blocking| {
                blocking.$name($(<$type as $crate::aio::arguments::Argument>::lend(&$arg)),*)
            }).await
        }
    )*};
}

pub(super) use calls;
