//! Handles that can be checked: numbers that are looked up, never pointers that are followed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What C code holds instead of an object. Null is never one.
pub type Handle = u64;

/// Objects by handle. No two tables share a handle, so that a stream is never taken for an event.
pub struct Table<T> {
    entries: Mutex<HashMap<Handle, Arc<T>>>,
}

impl<T> Table<T> {
    pub fn new() -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
        }
    }

    pub fn insert(&self, object: T) -> Handle {
        let handle = fresh();
        lock(&self.entries).insert(handle, Arc::new(object));
        handle
    }

    pub fn get(&self, handle: Handle) -> Option<Arc<T>> {
        lock(&self.entries).get(&handle).cloned()
    }

    pub fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        lock(&self.entries).remove(&handle)
    }

    /// The handle of an object that passes the test.
    pub fn find(&self, test: impl Fn(&T) -> bool) -> Option<Handle> {
        let entries = lock(&self.entries);
        entries
            .iter()
            .find(|(_, object)| test(object))
            .map(|(&handle, _)| handle)
    }

    /// Drops the objects that the test refuses.
    pub fn retain(&self, mut keep: impl FnMut(&T) -> bool) {
        lock(&self.entries).retain(|_, object| keep(object));
    }
}

/// A handle that nothing else has. Small numbers stay free: 1 and 2 name the default streams. Even addresses that look
/// like pointers are avoided, so that a handle of the real driver is hardly ever taken for one of these.
pub fn fresh() -> Handle {
    static NEXT: AtomicU64 = AtomicU64::new(0x5157_0001);
    NEXT.fetch_add(8, Ordering::Relaxed)
}

/// Locks; a panic elsewhere, which was reported already, is no reason to fail here.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_share_no_handles() {
        let (streams, events) = (Table::new(), Table::new());
        let stream = streams.insert("stream");
        let event = events.insert("event");
        assert_ne!(stream, event);
        assert!(events.get(stream).is_none());
        assert_eq!(streams.remove(stream).as_deref(), Some(&"stream"));
        assert!(streams.get(stream).is_none());
        assert!(streams.get(0).is_none());
    }
}
