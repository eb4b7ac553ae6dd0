//! What several callers who name the same thing share for as long as one of them has it: a lock, or
//! permits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// One `T` for each name. What nobody has any more is forgotten.
#[derive(Debug)]
pub struct ByName<T>(Mutex<BTreeMap<String, Weak<T>>>);

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByName<T> {
    /// What goes by this name, made where nobody has one.
    pub fn get(&self, name: &str, make: impl FnOnce() -> T) -> Arc<T> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(name).and_then(Weak::upgrade) {
            return shared;
        }
        known.retain(|_, shared| 0 < shared.strong_count());
        let new = Arc::new(make());
        known.insert(name.to_owned(), Arc::downgrade(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_thing_which_is_forgotten_when_nobody_has_it() {
        let names = ByName::default();
        let (one, two) = (names.get("one", || 1), names.get("two", || 2));
        assert_eq!((*names.get("one", || 3), *one, *two), (1, 1, 2));
        drop(one);
        assert_eq!(*names.get("one", || 4), 4);
        drop(two);
        let _three = names.get("three", || 3);
        assert_eq!(names.0.lock().unwrap().len(), 1);
    }
}
