//! Names in memory: for simulated stores, and where sled fails.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Mutex;

use crate::names::{Backend, Change, Failed, KeyList, KeyRange};
use crate::sync::lock;

#[derive(Debug, Default)]
pub(super) struct MemoryBackend {
    keys: Mutex<BTreeSet<Vec<u8>>>,
}

impl Backend for MemoryBackend {
    fn write(&self, changes: &[(Vec<u8>, Change)], _: Option<&[u8]>) -> Result<(), Failed> {
        let mut keys = lock(&self.keys);
        for (key, change) in changes {
            match change {
                Change::Set => keys.insert(key.clone()),
                Change::Remove => keys.remove(key),
            };
        }
        Ok(())
    }

    fn keys_in(&self, range: &KeyRange) -> Result<KeyList, Failed> {
        let keys = lock(&self.keys);
        let behind = keys.range::<[u8], _>((Bound::Excluded(range.after.as_slice()), Bound::Unbounded));
        Ok(behind.take_while(|key| **key < range.end).take(range.limit).cloned().collect())
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        Ok(None) // it ends with the process, and so does what it is for
    }

    fn close(&self) {}
}
