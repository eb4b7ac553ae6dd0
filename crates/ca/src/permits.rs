//! How many connections may be open at a time, of each and of all together.
//!
//! Nobody is refused for what others do: where all permits are taken, the oldest connection of the
//! same holder gives way, or else the oldest of whoever holds most; where several hold as many, the
//! oldest of theirs. What is honest is soon over, or is the newest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// How many permits there are.
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    /// For one holder.
    pub each: usize,
    /// For all together.
    pub all: usize,
}

/// Permits for connections, each held by a `K`. Clones are the same permits.
#[derive(Debug)]
pub struct Permits<K> {
    limit: Limit,
    given: Arc<Mutex<Given<K>>>,
}

impl<K> Clone for Permits<K> {
    fn clone(&self) -> Self {
        Self { limit: self.limit, given: Arc::clone(&self.given) }
    }
}

#[derive(Debug)]
struct Given<K> {
    count: usize,
    next: u64,
    /// By holder; the oldest first.
    tokens: BTreeMap<K, BTreeMap<u64, CancellationToken>>,
}

/// A permit, given back when it is dropped.
#[derive(Debug)]
pub struct Permit<K: Ord> {
    given: Arc<Mutex<Given<K>>>,
    key: K,
    number: u64,
    token: CancellationToken,
}

impl<K: Ord + Clone> Permits<K> {
    pub fn new(limit: Limit) -> Self {
        let given = Given { count: 0, next: 0, tokens: BTreeMap::new() };
        Self { limit, given: Arc::new(Mutex::new(given)) }
    }

    /// Takes a permit. Whoever has to give way for it is told by its token.
    pub fn take(&self, key: K) -> Permit<K> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let own = given.tokens.get(&key).map_or(0, BTreeMap::len);
        if own >= self.limit.each {
            given.evict(&key);
        } else if given.count >= self.limit.all {
            let most = given.tokens.iter().max_by_key(|(_, tokens)| {
                let oldest = tokens.keys().next().copied();
                (tokens.len(), Reverse(oldest))
            });
            if let Some(most) = most.map(|(key, _)| key.clone()) {
                given.evict(&most);
            }
        }
        let (number, token) = (given.next, CancellationToken::new());
        given.next += 1;
        given.count += 1;
        given.tokens.entry(key.clone()).or_default().insert(number, token.clone());
        Permit { given: Arc::clone(&self.given), key, number, token }
    }

    /// Ends the connections of everybody who is not to stay.
    pub fn retain(&self, stays: impl Fn(&K) -> bool) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let parting: Vec<K> = given.tokens.keys().filter(|key| !stays(key)).cloned().collect();
        for key in parting {
            while given.evict(&key) {}
        }
    }
}

impl<K: Ord> Given<K> {
    /// Ends the oldest connection of a holder; says whether there was one.
    fn evict(&mut self, key: &K) -> bool {
        let oldest = self.tokens.get(key).and_then(|tokens| tokens.keys().next().copied());
        oldest.is_some_and(|number| self.free(key, number))
    }

    fn free(&mut self, key: &K, number: u64) -> bool {
        let Some(tokens) = self.tokens.get_mut(key) else { return false };
        let Some(token) = tokens.remove(&number) else { return false };
        token.cancel();
        self.count -= 1;
        if tokens.is_empty() {
            self.tokens.remove(key);
        }
        true
    }
}

impl<K: Ord> Permit<K> {
    /// Cancelled when the connection has to end.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl<K: Ord> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.free(&self.key, self.number);
    }
}

/// Whom an address counts for. All of the last 64 bits of an IPv6 address belong to one machine, or
/// to one link: whoever has one of them has all.
pub fn origin(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over<K: Ord>(permit: &Permit<K>) -> bool {
        permit.token.is_cancelled()
    }

    #[test]
    fn the_oldest_of_the_same_holder_gives_way() {
        let permits = Permits::new(Limit { each: 2, all: 10 });
        let (one, two) = (permits.take("a"), permits.take("a"));
        let other = permits.take("b");
        let three = permits.take("a");
        assert_eq!([&one, &two, &other, &three].map(is_over), [true, false, false, false]);
        drop(two);
        let four = permits.take("a");
        assert_eq!([&three, &four].map(is_over), [false, false], "a permit was free again");
    }

    #[test]
    fn whoever_holds_most_gives_way_to_a_newcomer() {
        let permits = Permits::new(Limit { each: 10, all: 4 });
        let crowd: Vec<_> = (0..3).map(|_| permits.take("crowd")).collect();
        let quiet = permits.take("quiet");
        let newcomer = permits.take("new");
        assert!(is_over(&crowd[0]) && !is_over(&crowd[1]) && !is_over(&quiet));
        drop(newcomer);
        drop(crowd);
        assert_eq!(permits.given.lock().unwrap().count, 1);
    }

    #[test]
    fn connections_of_those_who_do_not_stay_end() {
        let permits = Permits::new(Limit { each: 10, all: 10 });
        let (one, two, other) = (permits.take("a"), permits.take("a"), permits.take("b"));
        permits.retain(|key| *key != "a");
        assert_eq!([&one, &two, &other].map(is_over), [true, true, false]);
    }

    #[test]
    fn where_all_hold_as_many_the_oldest_gives_way() {
        let permits = Permits::new(Limit { each: 10, all: 3 });
        let silent = [permits.take("a"), permits.take("b")];
        let honest = permits.take("z");
        let later = permits.take("c");
        assert_eq!(silent.each_ref().map(is_over), [true, false]);
        assert_eq!([&honest, &later].map(is_over), [false, false]);
    }

    #[test]
    fn many_addresses_of_one_link_count_as_one() {
        let of = |address: &str| origin(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
    }
}
