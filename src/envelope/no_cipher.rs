//! What stands in the place of ciphers in a crate that is built without encryption: none can be had.

use super::{Forged, Nonce, Suite, Tag};
use crate::error::Result;
use crate::keys::SecretKey;
use crate::zeroing::Zeroizing;

/// Whether there are ciphers.
pub(crate) const IS_THERE: bool = false;

/// There is no subkey.
pub(super) fn subkey(_: &SecretKey, _: &[u8; 32], _: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    None
}

/// A cipher, which there is not.
#[derive(Debug)]
pub(crate) enum Cipher {}

impl Cipher {
    pub(crate) fn new(_: Suite, _: &[u8; 32]) -> Option<Self> {
        None
    }

    pub(crate) fn seal(&self, _: Nonce, _: &[u8], _: &mut [u8]) -> Result<Tag> {
        match *self {}
    }

    pub(crate) fn open(&self, _: Nonce, _: &[u8], _: &mut [u8], _: Tag) -> Result<(), Forged> {
        match *self {}
    }

    pub(crate) fn seal_vec(&self, _: Nonce, _: &[u8], _: &mut Vec<u8>) -> Result<()> {
        match *self {}
    }

    pub(crate) fn open_vec(&self, _: Nonce, _: &[u8], _: &[u8]) -> Result<Vec<u8>, Forged> {
        match *self {}
    }
}
