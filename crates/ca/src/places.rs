//! How many connections may be open at a time, of each and of all together.
//!
//! Nobody is refused for what others do: where all places are taken, the oldest connection of the
//! same holder gives way, or else the oldest of whoever holds most. What is honest is soon over, or
//! is the newest.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;

/// Places for connections, each held by a `K`. Clones are the same places.
#[derive(Debug)]
pub(crate) struct Places<K> {
    each: usize,
    all: usize,
    held: Arc<Mutex<Held<K>>>,
}

impl<K> Clone for Places<K> {
    fn clone(&self) -> Self {
        Self { each: self.each, all: self.all, held: Arc::clone(&self.held) }
    }
}

#[derive(Debug)]
struct Held<K> {
    count: usize,
    next: u64,
    /// By holder; the oldest first.
    tokens: BTreeMap<K, BTreeMap<u64, CancellationToken>>,
}

/// A place; dropped, it is free again.
#[derive(Debug)]
pub(crate) struct Place<K: Ord> {
    held: Arc<Mutex<Held<K>>>,
    key: K,
    number: u64,
    token: CancellationToken,
}

impl<K: Ord + Clone> Places<K> {
    /// At most `each` for one holder and `all` together.
    pub(crate) fn new(each: usize, all: usize) -> Self {
        let held = Held { count: 0, next: 0, tokens: BTreeMap::new() };
        Self { each, all, held: Arc::new(Mutex::new(held)) }
    }

    /// Takes a place. Whoever has to give way for it is told by its token.
    pub(crate) fn take(&self, key: K) -> Place<K> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let own = held.tokens.get(&key).map_or(0, BTreeMap::len);
        if own >= self.each {
            held.evict(&key);
        } else if held.count >= self.all {
            let most = held.tokens.iter().max_by_key(|(_, tokens)| tokens.len());
            if let Some(most) = most.map(|(key, _)| key.clone()) {
                held.evict(&most);
            }
        }
        let (number, token) = (held.next, CancellationToken::new());
        held.next += 1;
        held.count += 1;
        held.tokens.entry(key.clone()).or_default().insert(number, token.clone());
        Place { held: Arc::clone(&self.held), key, number, token }
    }

    /// Ends the connections of everybody who is not to stay.
    pub(crate) fn retain(&self, stays: impl Fn(&K) -> bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let parting: Vec<K> = held.tokens.keys().filter(|key| !stays(key)).cloned().collect();
        for key in parting {
            while held.evict(&key) {}
        }
    }
}

impl<K: Ord> Held<K> {
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

impl<K: Ord> Place<K> {
    /// Cancelled when the connection has to end.
    pub(crate) fn token(&self) -> CancellationToken {
        self.token.clone()
    }
}

impl<K: Ord> Drop for Place<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.free(&self.key, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over<K: Ord>(place: &Place<K>) -> bool {
        place.token.is_cancelled()
    }

    #[test]
    fn the_oldest_of_the_same_holder_gives_way() {
        let places = Places::new(2, 10);
        let (one, two) = (places.take("a"), places.take("a"));
        let other = places.take("b");
        let three = places.take("a");
        assert_eq!([&one, &two, &other, &three].map(is_over), [true, false, false, false]);
        drop(two);
        let four = places.take("a");
        assert_eq!([&three, &four].map(is_over), [false, false], "a place was free again");
    }

    #[test]
    fn whoever_holds_most_gives_way_to_a_newcomer() {
        let places = Places::new(10, 4);
        let crowd: Vec<_> = (0..3).map(|_| places.take("crowd")).collect();
        let quiet = places.take("quiet");
        let newcomer = places.take("new");
        assert!(is_over(&crowd[0]) && !is_over(&crowd[1]) && !is_over(&quiet));
        drop(newcomer);
        drop(crowd);
        assert_eq!(places.held.lock().unwrap().count, 1);
    }

    #[test]
    fn connections_of_those_who_do_not_stay_end() {
        let places = Places::new(10, 10);
        let (one, two, other) = (places.take("a"), places.take("a"), places.take("b"));
        places.retain(|key| *key != "a");
        assert_eq!([&one, &two, &other].map(is_over), [true, true, false]);
    }
}
