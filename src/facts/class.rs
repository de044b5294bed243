//! The storage class of manifests.

use crate::wire::{Fields, PutFields};

/// How fast an image is to be had: see
/// [`Repository::set_storage_class`](crate::registry::Repository::set_storage_class).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StorageClass {
    /// It can be pulled.
    #[default]
    Standard,
    /// It is kept, and has to be restored before it can be pulled.
    Archive,
}

/// The class of a manifest, and when it came to that. 17 bytes:
///
/// ```text
/// class u8 (0 standard, 1 archive) | archived u64, activated u64 (ms since 1970; 0: never)
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Storage {
    pub(crate) class: StorageClass,
    /// When it was archived last.
    archived: u64,
    /// When it was restored last.
    activated: u64,
}

impl Storage {
    /// Of a class from now on.
    pub(crate) fn moved(self, class: StorageClass, now: u64) -> Self {
        let now = now.max(1); // 0 says never
        match class {
            StorageClass::Standard => Self { class, activated: now, ..self },
            StorageClass::Archive => Self { class, archived: now, ..self },
        }
    }

    /// When it was archived last.
    pub(crate) fn archived(&self) -> Option<u64> {
        Some(self.archived).filter(|time| *time > 0)
    }

    /// When it was restored last.
    pub(crate) fn activated(&self) -> Option<u64> {
        Some(self.activated).filter(|time| *time > 0)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.class.code());
        out.put_u64(self.archived);
        out.put_u64(self.activated);
    }

    pub(crate) fn take(fields: &mut Fields<'_>) -> Option<Self> {
        let class = StorageClass::from_code(fields.u8()?)?;
        Some(Self { class, archived: fields.u64()?, activated: fields.u64()? })
    }
}

impl StorageClass {
    /// The number that stands for it in files.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Standard => 0,
            Self::Archive => 1,
        }
    }

    /// The class of a number in a file.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Standard),
            1 => Some(Self::Archive),
            _ => None,
        }
    }
}
