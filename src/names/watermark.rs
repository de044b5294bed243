//! The watermark of the names in a backend: up to which LSN they are complete, and whether they are trusted after a
//! restart.

use crate::id::{DomainId, Lsn, SessionId, StoreId};
use crate::wire::{Fields, PutFields};

/// One boot of the machine; none where that can't be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BootId(pub(super) Option<Vec<u8>>);

impl BootId {
    /// For a view of which nothing is kept.
    pub(crate) const NONE: Self = Self(None);

    pub(crate) fn current() -> Self {
        let id = std::fs::read("/proc/sys/kernel/random/boot_id").ok();
        Self(id.map(|id| id.trim_ascii().to_vec()).filter(|id| !id.is_empty() && id.len() < 100))
    }
}

/// What the store knows when it opens the view.
#[derive(Clone, Debug)]
pub(crate) struct Trust {
    pub(crate) store: StoreId,
    /// The last session that wrote to the log.
    pub(crate) session: SessionId,
    /// The log can replay all commits behind this.
    pub(crate) folded: Lsn,
    /// The log's last commit.
    pub(crate) last: Lsn,
    pub(crate) boot: BootId,
}

/// How names are laid out in sled. A view of another layout is not trusted.
const LAYOUT: u8 = 4;

/// How far the names in a backend reach, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Watermark {
    pub(super) store: StoreId,
    pub(super) session: SessionId,
    pub(super) lsn: Lsn,
    /// The domains whose names are not there, since they were locked.
    pub(super) without: Vec<DomainId>,
    pub(super) boot: Vec<u8>,
}

impl Watermark {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(LAYOUT);
        out.put(&self.store.0);
        out.put(&self.session.0);
        out.put_u64(self.lsn.0);
        out.put_len32(self.without.len());
        self.without.iter().for_each(|domain| out.put_u32(domain.0));
        out.put(&self.boot);
        out
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes);
        (fields.u8()? == LAYOUT).then_some(())?;
        let store = StoreId(fields.array()?);
        let session = SessionId(fields.array()?);
        let lsn = Lsn(fields.u64()?);
        let count = fields.u32()?;
        let without = (0..count).map(|_| fields.u32().map(DomainId)).collect::<Option<_>>()?;
        Some(Self { store, session, lsn, without, boot: fields.0.to_vec() })
    }

    pub(super) fn is_trusted(&self, trust: &Trust, locked: &[DomainId]) -> bool {
        self.store == trust.store
            && self.without == locked
            && self.session == trust.session
            && trust.boot.0.as_ref() == Some(&self.boot)
            && (trust.folded..=trust.last).contains(&self.lsn)
    }
}
