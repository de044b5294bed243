//! Names in memory: for simulated stores, and where sled fails.

use std::collections::BTreeSet;
use std::ops::Bound;

use crate::names::{Backend, Change, Failed};

#[derive(Debug, Default)]
pub(super) struct MemoryBackend {
    keys: BTreeSet<Vec<u8>>,
    watermark: Option<Vec<u8>>,
}

impl Backend for MemoryBackend {
    fn write(&mut self, changes: &[(Vec<u8>, Change)], watermark: Option<&[u8]>) -> Result<(), Failed> {
        for (key, change) in changes {
            match change {
                Change::Set => self.keys.insert(key.clone()),
                Change::Remove => self.keys.remove(key),
            };
        }
        self.watermark = watermark.map(<[u8]>::to_vec).or(self.watermark.take());
        Ok(())
    }

    fn keys_after(&self, after: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Failed> {
        let keys = self.keys.range::<[u8], _>((Bound::Excluded(after), Bound::Unbounded));
        Ok(keys.take_while(|key| key.first() == after.first()).take(limit).cloned().collect())
    }

    fn watermark(&self) -> Result<Option<Vec<u8>>, Failed> {
        Ok(self.watermark.clone())
    }

    fn close(&mut self) {}
}
