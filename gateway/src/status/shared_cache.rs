//! A cache of values that are read once for all who ask at the same time, and kept for a short
//! time. Bounded. Knows nothing of its values.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A value with the time at which its read began.
type Cell<V> = Arc<OnceCell<(Instant, V)>>;

/// Values by key, each for `ttl` after the begin of its read. Concurrent callers of one key share
/// one read; if it fails or is dropped, the next of them reads.
pub(super) struct SharedCache<K, V> {
    ttl: Duration,
    entries_max: usize,
    cells: Mutex<HashMap<K, Cell<V>>>,
}

impl<K: Eq + Hash, V: Clone> SharedCache<K, V> {
    /// A cache of at most `entries_max` values.
    pub(super) fn new(ttl: Duration, entries_max: usize) -> Self {
        Self {
            ttl,
            entries_max,
            cells: Mutex::default(),
        }
    }

    /// The value of a key. `read` is polled only if there is none that is fresh, and no other
    /// caller reads it. An error is returned to the one caller whose read failed.
    pub(super) async fn get<E>(
        &self,
        key: K,
        read: impl Future<Output = Result<V, E>>,
    ) -> Result<V, E> {
        let cell = self.cell(key);
        let read = async {
            let begin = Instant::now();
            let value = read.await?;
            Ok::<(Instant, V), E>((begin, value))
        };
        let (_, value) = cell.get_or_try_init(|| read).await?;
        Ok(value.clone())
    }

    /// The cell of a key: the present one if it is fresh or being read, or else a new one.
    fn cell(&self, key: K) -> Cell<V> {
        let mut cells = self.cells();
        if let Some(cell) = cells.get(&key).filter(|cell| self.is_useful(cell)) {
            return Arc::clone(cell);
        }
        if cells.len() >= self.entries_max {
            cells.retain(|_, cell| self.is_useful(cell));
        }
        if cells.len() >= self.entries_max {
            // All are fresh. Callers that wait keep their cells.
            cells.clear();
        }
        let cell = Cell::<V>::default();
        cells.insert(key, Arc::clone(&cell));
        cell
    }

    fn is_useful(&self, cell: &Cell<V>) -> bool {
        match cell.get() {
            Some((begin, _)) => begin.elapsed() < self.ttl,
            // Somebody reads it, unless all who wanted it have gone.
            None => Arc::strong_count(cell) > 1,
        }
    }

    fn cells(&self) -> MutexGuard<'_, HashMap<K, Cell<V>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K, V> fmt::Debug for SharedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCache")
            .field("ttl", &self.ttl)
            .field("entries_max", &self.entries_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const TTL: Duration = Duration::from_millis(500);

    async fn read(cache: &SharedCache<u32, usize>, key: u32, reads: &AtomicUsize) -> usize {
        let read = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<usize, ()>(reads.fetch_add(1, Ordering::Relaxed))
        };
        cache.get(key, read).await.expect("it never fails")
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_one_read_until_it_is_old() {
        let (cache, reads) = (SharedCache::new(TTL, 10), AtomicUsize::new(0));
        let both = tokio::join!(read(&cache, 1, &reads), read(&cache, 1, &reads));
        assert_eq!(both, (0, 0));
        assert_eq!(read(&cache, 2, &reads).await, 1, "another key");
        assert_eq!(read(&cache, 1, &reads).await, 0);
        tokio::time::advance(TTL).await;
        assert_eq!(read(&cache, 1, &reads).await, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_read_is_repeated_by_the_next_caller() {
        let cache = SharedCache::<u32, u32>::new(TTL, 10);
        assert_eq!(cache.get(1, async { Err("no") }).await, Err("no"));
        assert_eq!(cache.get(1, async { Ok::<u32, &str>(7) }).await, Ok(7));
        assert_eq!(cache.get(1, async { Err("no") }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_read_is_repeated_by_the_next_caller() {
        let cache = SharedCache::<u32, u32>::new(TTL, 10);
        let never = cache.get(1, std::future::pending::<Result<u32, ()>>());
        let given_up = tokio::time::timeout(Duration::from_millis(10), never).await;
        assert!(given_up.is_err());
        assert_eq!(cache.get(1, async { Ok::<u32, ()>(7) }).await, Ok(7));
    }

    #[tokio::test(start_paused = true)]
    async fn the_number_of_values_is_bounded() {
        let cache = SharedCache::<u32, u32>::new(TTL, 10);
        for key in 0..100 {
            let value = cache.get(key, async { Ok::<u32, ()>(key) }).await;
            assert_eq!(value, Ok(key));
            assert!(cache.cells().len() <= 10);
        }
    }
}
