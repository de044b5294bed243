//! Key domains that are locked.

use super::Keyring;
use crate::error::Error;
use crate::id::DomainId;
use crate::keys::DomainName;

/// A key domain that is locked: its keys could not be unwrapped when the store was opened, nor since.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LockedDomain {
    /// Its number.
    pub number: u32,
    /// Its name.
    pub name: Option<DomainName>,
    /// The key provider's last error: calls on the domain fail with it.
    pub error: Error,
}

impl Keyring {
    /// The locked domains, as users are told of them.
    pub(crate) fn locked_domains(&self) -> Vec<LockedDomain> {
        let known = |(id, why): (DomainId, &Error)| LockedDomain {
            number: id.0,
            name: self.label(id).parse().ok(),
            error: why.clone(),
        };
        self.locked().map(known).collect()
    }
}
