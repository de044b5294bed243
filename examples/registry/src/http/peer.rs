//! The client of a connection, and whether the registry waits for it.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use axum::http::HeaderMap;

/// Who limits count as one: an address, of IPv6 a network of 64 bits, which is what one customer has at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Client(IpAddr);

impl Client {
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
            v4 => v4,
        })
    }
}

/// A connection.
#[derive(Debug)]
pub struct Peer {
    pub client: Client,
    address: IpAddr,
    /// It is a proxy's: many clients are behind it.
    pub is_proxy: bool,
    /// There was no place for it: it is told so, unless it is a probe.
    pub is_surplus: bool,
    /// A request is being answered.
    busy: AtomicBool,
    /// Since when the registry waits for the client, in milliseconds since the first connection; [`NEVER`] while it
    /// does not.
    waiting: AtomicU64,
    /// Bytes of memory that its request keeps.
    pub keeps: AtomicUsize,
}

const NEVER: u64 = u64::MAX;

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_millis().try_into().unwrap_or(NEVER - 1)
}

impl Peer {
    /// A connection that was just made.
    pub fn new(address: IpAddr, is_proxy: bool, is_surplus: bool) -> Self {
        let (client, address) = (Client::of(address), address.to_canonical());
        let (busy, waiting, keeps) = (AtomicBool::new(false), AtomicU64::new(now()), AtomicUsize::new(0));
        Self { client, address, is_proxy, is_surplus, busy, waiting, keeps }
    }

    /// A request's head is there: it is the registry's turn.
    pub fn asks(&self) {
        self.waiting.store(NEVER, Relaxed);
        self.busy.store(true, Relaxed);
    }

    /// The request is over: it is the client's turn to ask for something, or to go.
    pub fn is_answered(&self) {
        self.busy.store(false, Relaxed);
        self.waiting.store(now(), Relaxed);
    }

    /// The registry waits for the client, who is to send or to read.
    pub fn waits(&self) {
        let _ = self.waiting.compare_exchange(NEVER, now(), Relaxed, Relaxed);
    }

    /// The client went on.
    pub fn goes_on(&self) {
        if self.busy.load(Relaxed) {
            self.waiting.store(NEVER, Relaxed);
        }
    }

    pub fn is_busy(&self) -> bool {
        self.busy.load(Relaxed)
    }

    /// For how long the registry has been waiting for the client.
    pub fn waiting(&self) -> Duration {
        match self.waiting.load(Relaxed) {
            NEVER => Duration::ZERO,
            since => Duration::from_millis(now().saturating_sub(since)),
        }
    }

    /// The client of a request: where a proxy passes it on, the one that the proxy says.
    pub fn client_of(&self, headers: &HeaderMap) -> Client {
        Client::of(self.address_of(headers))
    }

    /// Its address, to the last bit: policies may be about one, where limits are about a network.
    pub fn address_of(&self, headers: &HeaderMap) -> IpAddr {
        let forwarded = headers.get_all("x-forwarded-for").iter().next_back().filter(|_| self.is_proxy);
        let last = forwarded.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
        last.map_or(self.address, |address: IpAddr| address.to_canonical())
    }
}

/// A request that is being answered on a connection.
#[derive(Debug)]
pub struct Asking(pub Arc<Peer>);

impl Asking {
    pub fn new(peer: Arc<Peer>) -> Self {
        peer.asks();
        Self(peer)
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.is_answered();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network_and_only_a_proxy_says_of_another() {
        let client = |text: &str| Client::of(text.parse().unwrap());
        assert_eq!(client("2001:db8:1:2::3"), client("2001:db8:1:2:ffff::"));
        assert_ne!(client("2001:db8:1:2::3"), client("2001:db8:1:3::3"));
        assert_eq!(client("::ffff:192.0.2.1"), client("192.0.2.1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
        let mut headers = HeaderMap::new();
        headers.append("x-forwarded-for", "198.51.100.1".parse().unwrap());
        headers.append("x-forwarded-for", "198.51.100.2, 203.0.113.7".parse().unwrap());
        let of = |is_proxy| Peer::new("192.0.2.1".parse().unwrap(), is_proxy, false).client_of(&headers);
        assert_eq!((of(false), of(true)), (client("192.0.2.1"), client("203.0.113.7")));
        // A network is one client, and each of its addresses one of its own to policies.
        let peer = |is_proxy| Peer::new("2001:db8::1".parse().unwrap(), is_proxy, false);
        headers.append("x-forwarded-for", "2001:db8::2".parse().unwrap());
        assert_eq!(peer(false).client_of(&headers), peer(true).client_of(&headers));
        let addresses = [false, true].map(|is_proxy| peer(is_proxy).address_of(&headers).to_string());
        assert_eq!(addresses, ["2001:db8::1", "2001:db8::2"]);
    }

    #[test]
    fn the_registry_waits_for_who_has_not_asked_yet_and_who_does_not_go_on() {
        let peer = Arc::new(Peer::new("192.0.2.1".parse().unwrap(), false, false));
        let is_waiting = || peer.waiting.load(Relaxed) != NEVER;
        peer.goes_on();
        assert!(is_waiting() && !peer.is_busy(), "a part of a head is no request");
        let asking = Asking::new(Arc::clone(&peer));
        assert!(!is_waiting() && peer.is_busy());
        peer.waits();
        assert!(is_waiting());
        peer.goes_on();
        assert!(!is_waiting());
        drop(asking);
        assert!(is_waiting() && !peer.is_busy());
    }
}
