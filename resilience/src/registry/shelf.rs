//! A bounded map whose members make way only when nobody would miss them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Key, RegistryFull};

/// What a shelf holds.
pub(super) trait Member: Clone {
    /// What several of them are called.
    const KIND: &'static str;

    /// Whether one made afresh would be the same to everybody: nobody else holds it, nothing is
    /// under way, and there is nothing that it remembers.
    fn is_dispensable(&self) -> bool;
}

pub(super) struct Shelf<T> {
    capacity: usize,
    places: Mutex<Places<T>>,
}

struct Places<T> {
    /// In the order in which they are shown.
    by_key: BTreeMap<Key, Place<T>>,
    /// Counts look-ups: the age of a place.
    time: u64,
}

struct Place<T> {
    member: T,
    used: u64,
}

impl<T: Member> Shelf<T> {
    pub(super) fn new(capacity: usize) -> Self {
        let places = Places { by_key: BTreeMap::new(), time: 0 };
        Self { capacity: capacity.max(1), places: Mutex::new(places) }
    }

    fn lock(&self) -> MutexGuard<'_, Places<T>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one under this key, made now if there is none yet.
    pub(super) fn get_or_make(
        &self,
        key: &Key,
        make: impl FnOnce(&Key) -> T,
    ) -> Result<T, RegistryFull> {
        if let Some(found) = self.lock().find(key.as_str()) {
            return Ok(found);
        }
        // Not under the lock: it is the caller's code, which may look something up itself.
        let made = make(key);
        let mut places = self.lock();
        if let Some(found) = places.find(key.as_str()) {
            return Ok(found);
        }
        if places.by_key.len() >= self.capacity && !places.make_way() {
            return Err(RegistryFull { kind: T::KIND, capacity: self.capacity });
        }
        places.time += 1;
        let place = Place { member: made.clone(), used: places.time };
        places.by_key.insert(key.clone(), place);
        Ok(made)
    }

    pub(super) fn get(&self, key: &str) -> Option<T> {
        self.lock().find(key)
    }

    /// All of them, sorted by key.
    pub(super) fn all(&self) -> Vec<(Key, T)> {
        let places = self.lock();
        places.by_key.iter().map(|(key, place)| (key.clone(), place.member.clone())).collect()
    }

    /// What `show` says of all of them, sorted by key.
    pub(super) fn snapshots<S>(&self, show: impl Fn(&T) -> S) -> Vec<S> {
        self.lock().by_key.values().map(|place| show(&place.member)).collect()
    }
}

impl<T: Member> Places<T> {
    fn find(&mut self, key: &str) -> Option<T> {
        let place = self.by_key.get_mut(key)?;
        self.time += 1;
        place.used = self.time;
        Some(place.member.clone())
    }

    /// Gives up the one that was looked up the longest ago, of those that nobody would miss.
    fn make_way(&mut self) -> bool {
        let dispensable = self.by_key.iter().filter(|(_, place)| place.member.is_dispensable());
        let oldest = dispensable.min_by_key(|(_, place)| place.used).map(|(key, _)| key.clone());
        oldest.is_some_and(|key| self.by_key.remove(&key).is_some())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Dispensable while nobody else holds it.
    #[derive(Clone)]
    struct Thing(Arc<u32>);

    impl Member for Thing {
        const KIND: &'static str = "things";

        fn is_dispensable(&self) -> bool {
            Arc::strong_count(&self.0) == 1
        }
    }

    fn thing(n: u32) -> impl FnOnce(&Key) -> Thing {
        move |_| Thing(n.into())
    }

    fn keys(shelf: &Shelf<Thing>) -> Vec<String> {
        shelf.all().iter().map(|(key, _)| key.to_string()).collect()
    }

    #[test]
    fn a_key_is_made_once() {
        let shelf = Shelf::new(10);
        let key = Key::new("a");
        let first = shelf.get_or_make(&key, thing(1)).expect("room");
        let second = shelf.get_or_make(&key, |_| unreachable!("it is there")).expect("room");
        assert!(Arc::ptr_eq(&first.0, &second.0));
        assert!(shelf.get("b").is_none());
    }

    #[test]
    fn making_one_may_look_up_others() {
        let shelf = Shelf::new(10);
        let made = shelf.get_or_make(&Key::new("a"), |_| {
            let inner = shelf.get_or_make(&Key::new("a"), thing(1)).expect("room");
            Thing(Arc::new(*inner.0 + 1))
        });
        // Whoever was first wins: there is one only.
        assert_eq!(*made.expect("room").0, 1);
        assert_eq!(keys(&shelf), ["a"]);
    }

    #[test]
    fn when_it_is_full_the_one_unused_for_longest_makes_way() {
        let shelf = Shelf::new(3);
        for name in ["c", "a", "b"] {
            shelf.get_or_make(&Key::new(name), thing(0)).expect("room");
        }
        shelf.get("c").expect("there");
        shelf.get_or_make(&Key::new("d"), thing(0)).expect("room");
        assert_eq!(keys(&shelf), ["b", "c", "d"]);
    }

    #[test]
    fn what_is_in_use_never_makes_way() {
        let shelf = Shelf::new(2);
        let held = shelf.get_or_make(&Key::new("held"), thing(0)).expect("room");
        for name in ["x", "y", "z"] {
            shelf.get_or_make(&Key::new(name), thing(0)).expect("room");
        }
        assert_eq!(keys(&shelf), ["held", "z"]);
        let other = shelf.get("z").expect("there");
        let error = shelf.get_or_make(&Key::new("new"), thing(0)).err().expect("no room");
        assert_eq!(error.to_string(), "the registry is full: 2 things, all of them in use");
        assert_eq!(keys(&shelf), ["held", "z"]);
        drop((held, other));
        shelf.get_or_make(&Key::new("new"), thing(0)).expect("room again");
    }
}
