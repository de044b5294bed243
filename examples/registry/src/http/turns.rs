//! Turns: how many requests are worked on at once, of all clients and of each, so that a client with many requests
//! waits for its own, and the others do not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::failure::Failure;
use super::peer::Client;

#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    /// How many of them one client may have.
    each: usize,
    clients: Mutex<HashMap<Client, Weak<Semaphore>>>,
    wait: Duration,
}

/// A turn, given back when this is dropped.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Turns {
    pub fn new(all: usize, each: usize, wait: Duration) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, clients: Mutex::default(), wait }
    }

    /// Waits for a client's turn.
    ///
    /// # Errors
    /// 503 where that takes too long.
    pub async fn take(&self, client: Client) -> Result<Turn, Failure> {
        let own = self.of(client);
        let taken = async {
            // In this order: those of one client wait for each other, and no more than `each` of them with the others.
            let own = own.acquire_owned().await.ok()?;
            let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
            Some(Turn { _all: all, _own: own })
        };
        timeout(self.wait, taken).await.ok().flatten().ok_or_else(Failure::busy)
    }

    fn of(&self, client: Client) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = clients.get(&client).and_then(Weak::upgrade) {
            return own;
        }
        clients.retain(|_, own| own.strong_count() > 0);
        let own = Arc::new(Semaphore::new(self.each));
        clients.insert(client, Arc::downgrade(&own));
        own
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn who_takes_many_turns_leaves_some_and_waits_behind_who_takes_few() {
        let client = |n: u8| Client::of([192, 0, 2, n].into());
        let turns = Turns::new(4, 3, Duration::from_secs(60));
        let first: Vec<_> = (0..3).map(|_| turns.take(client(1)).now_or_never().unwrap()).collect();
        let mut more: Vec<_> = (0..9).map(|_| Box::pin(turns.take(client(1)))).collect();
        assert!(more.iter_mut().all(|turn| turn.now_or_never().is_none()));
        let other = turns.take(client(2)).now_or_never().unwrap().unwrap();
        let mut waiting = Box::pin(turns.take(client(3)));
        assert!((&mut waiting).now_or_never().is_none(), "there are four");
        drop(first); // all three, and of those that wait for them the third client's came before
        let third = (&mut waiting).now_or_never().unwrap();
        let again: Vec<_> = more.iter_mut().filter_map(|turn| turn.now_or_never()).collect();
        assert_eq!(again.len(), 2);
        drop((other, third, waiting, again, more));
        assert_eq!(turns.clients.lock().unwrap().len(), 3);
        drop(turns.take(client(4)).await);
        assert_eq!(turns.clients.lock().unwrap().len(), 1, "who has none is forgotten");
    }
}
