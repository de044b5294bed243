//! Memory that is wiped when it is dropped: what keys, and decrypted content, lie in.

#[cfg(feature = "encryption")]
pub(crate) use zeroize::Zeroizing;

#[cfg(not(feature = "encryption"))]
pub(crate) use plain::Zeroizing;

/// Without encryption there is nothing to wipe.
#[cfg(not(feature = "encryption"))]
mod plain {
    use std::ops::{Deref, DerefMut};

    #[derive(Clone, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Zeroizing<T>(T);

    impl<T> Zeroizing<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(value)
        }
    }

    impl<T> Deref for Zeroizing<T> {
        type Target = T;

        fn deref(&self) -> &T {
            &self.0
        }
    }

    impl<T> DerefMut for Zeroizing<T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.0
        }
    }
}
