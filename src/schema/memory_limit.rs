//! The memory of a parsed payload, and the limit for all of them.
//!
//! For validation a payload is parsed into a tree that can take a hundred times its bytes, for
//! example with many small objects. Such trees take turns in the whole process, and each is dropped
//! before its thread waits for anything else.

use std::sync::{Condvar, Mutex, PoisonError};

/// The most bytes of all trees of large payloads. A larger tree is alone.
const TREES_BYTES_MAX: usize = 64 << 20;

/// Payloads up to this size are parsed without waiting: as many as there are threads fit into
/// memory, whatever their content.
const SMALL_BYTES: usize = 16 << 10;

/// The bytes of a B-tree leaf of an object, which the smallest object has.
const OBJECT_BYTES: usize = 640;
/// The bytes of an array that has an element.
const ARRAY_BYTES: usize = 128;
/// The bytes of a further element or member: arrays grow by doubling.
const ELEMENT_BYTES: usize = 64;
/// The bytes of a member beside its value: its share of half-filled leaves, and its name.
const MEMBER_BYTES: usize = 144;

/// The existing trees.
static TREES: TreeBudget = TreeBudget::new(TREES_BYTES_MAX);

/// Runs `with_tree`, which parses these bytes into a tree and drops it, once there is room for the
/// tree. Blocks the thread while others parse, and waits for nothing else.
pub(super) fn with_memory_for<T>(json: &[u8], with_tree: impl FnOnce() -> T) -> T {
    if json.len() <= SMALL_BYTES {
        return with_tree();
    }
    let _room = TREES.acquire(estimated_tree_bytes(json));
    with_tree()
}

/// The approximate bytes of the tree of this JSON, whatever its content.
fn estimated_tree_bytes(json: &[u8]) -> usize {
    let (mut weight, mut is_text, mut is_escaped) = (json.len(), false, false);
    for byte in json {
        if is_text {
            is_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        weight += match byte {
            b'{' => OBJECT_BYTES,
            b'[' => ARRAY_BYTES,
            b',' => ELEMENT_BYTES,
            b':' => MEMBER_BYTES,
            b'"' => {
                is_text = true;
                size_of::<usize>() * 4
            }
            _ => 0,
        };
    }
    weight
}

/// Room for trees.
struct TreeBudget {
    bytes_max: usize,
    bytes: Mutex<usize>,
    freed: Condvar,
}

impl TreeBudget {
    const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            bytes: Mutex::new(0),
            freed: Condvar::new(),
        }
    }

    /// Waits until there is room for this many bytes, or there is no other tree.
    fn acquire(&self, bytes: usize) -> TreePermit<'_> {
        let bytes = bytes.min(self.bytes_max);
        let taken = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_full = |taken: &mut usize| *taken + bytes > self.bytes_max;
        let waited = self.freed.wait_while(taken, is_full);
        *waited.unwrap_or_else(PoisonError::into_inner) += bytes;
        TreePermit { trees: self, bytes }
    }
}

/// The room of one tree.
struct TreePermit<'a> {
    trees: &'a TreeBudget,
    bytes: usize,
}

impl Drop for TreePermit<'_> {
    fn drop(&mut self) {
        let taken = self.trees.bytes.lock();
        *taken.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
        self.trees.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn many_small_things_weigh_many_times_their_bytes() {
        let of =
            |part: &str| estimated_tree_bytes(format!("[{}0]", part.repeat(100_000)).as_bytes());
        let per_part = |part: &str| of(part) / 100_000;
        assert!(per_part(r#"{"":0},"#) > 800, "{}", per_part(r#"{"":0},"#));
        assert!(per_part("[],") > 150);
        assert!(per_part("0,") >= 64);
        let text = format!("\"{}\"", r#"\"{[,:"#.repeat(10_000));
        assert!(
            estimated_tree_bytes(text.as_bytes()) < text.len() + 100,
            "it is a text"
        );
    }

    #[test]
    fn trees_take_turns_where_they_do_not_fit_together() {
        let trees = TreeBudget::new(100);
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for bytes in [30, 30, 30, 60, 100, 1000, 1000] {
                let (trees, now, most) = (&trees, &now, &most);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let tree = trees.acquire(bytes);
                        let held = now.fetch_add(bytes.min(100), Ordering::SeqCst);
                        most.fetch_max(held + bytes.min(100), Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(bytes.min(100), Ordering::SeqCst);
                        drop(tree);
                    }
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) <= 100);
        assert_eq!(
            *trees
                .bytes
                .lock()
                .expect("no thread panicked with the lock"),
            0
        );
    }
}
