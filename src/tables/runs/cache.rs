//! Pages of encrypted runs, decrypted, in memory.
//!
//! A look-up touches a page of the guide and a page or two of entries. Decrypting one takes about a microsecond, so
//! those that are used often are kept; about the least recently used of the others is dropped first.

use std::collections::{HashMap, VecDeque};
use std::hash::BuildHasherDefault;
use std::sync::{Arc, Mutex};

use crate::sync::{IdHasher, lock};
use crate::tables::runs::format::PAGE;
use crate::wire::index;
use crate::zeroing::Zeroizing;

const SHARDS: usize = 16;

/// A decrypted page, wiped when its last holder drops it.
pub(crate) type Page = Arc<Zeroizing<Vec<u8>>>;

/// Keeps pages up to a number of bytes.
#[derive(Debug)]
pub(crate) struct PageCache {
    shards: Vec<Mutex<Shard>>,
    /// How many pages a shard keeps.
    most: usize,
}

#[derive(Debug, Default)]
struct Shard {
    pages: HashMap<u64, Kept, BuildHasherDefault<IdHasher>>,
    /// The order in which they came, for eviction by second chance.
    order: VecDeque<u64>,
}

struct Kept {
    /// Whose page it is: another may have the same hash.
    at: (u64, u64),
    page: Page,
    used: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

impl PageCache {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Arc::new(Self { shards, most: (bytes / PAGE / SHARDS).max(1) })
    }

    /// The shard of a page, and the hash under which it is kept there.
    fn place(&self, run: u64, number: u64) -> Option<(&Mutex<Shard>, u64)> {
        let mixed = (run.rotate_left(36) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let shard = self.shards.get(index(mixed >> 60))?;
        Some((shard, mixed))
    }

    pub(crate) fn get(&self, run: u64, number: u64) -> Option<Page> {
        let (shard, hash) = self.place(run, number)?;
        let mut shard = lock(shard);
        let kept = shard.pages.get_mut(&hash).filter(|kept| kept.at == (run, number))?;
        kept.used = true;
        Some(Arc::clone(&kept.page))
    }

    /// Forgets all pages.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            *lock(shard) = Shard::default();
        }
    }

    pub(crate) fn insert(&self, run: u64, number: u64, page: Page) {
        let Some((shard, hash)) = self.place(run, number) else { return };
        let mut shard = lock(shard);
        if shard.pages.insert(hash, Kept { at: (run, number), page, used: false }).is_none() {
            shard.order.push_back(hash);
        }
        // Each round evicts or takes a second chance away.
        while shard.pages.len() > self.most {
            let Some(oldest) = shard.order.pop_front() else { return };
            if shard.pages.get_mut(&oldest).is_some_and(|kept| std::mem::take(&mut kept.used)) {
                shard.order.push_back(oldest);
            } else {
                shard.pages.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_the_cache_does_not_grow() {
        let cache = PageCache::new(64 * PAGE);
        let page = |n: u64| Arc::new(Zeroizing::new(n.to_le_bytes().to_vec()));
        for n in 0..10_000 {
            cache.insert(1, n, page(n));
            assert_eq!(cache.get(1, 0), Some(page(0)), "after page {n}");
        }
        let kept: usize = cache.shards.iter().map(|shard| lock(shard).pages.len()).sum();
        assert!(kept <= 64);
        assert_eq!(cache.get(2, 9_999), None);
    }
}
