//! Panics of a service's own code: each turns at most one record into a dead letter.
//!
//! Owns the catching, the text and the disposal of panics. A panic caught here cannot unwind any
//! further: neither from the code itself, nor from the drop of its result or of the panic's
//! payload.
//!
//! A worker drives many records in one task, so a panic that escaped would end all of them. All
//! code of a service is therefore called by way of this module: handlers and their drop, layers,
//! extractors, classifiers, and the `Display`, `source` and drop of errors.

use super::{DeadReason, Stage};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs `code`, which `what` names. A panic becomes the reason of a dead letter.
pub(crate) fn caught<T>(what: &str, code: impl FnOnce() -> T) -> Result<T, DeadReason> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| reason_of(what, panic))
}

/// The reason of a dead letter for a panic of `what`, which completes the sentence "… panicked".
/// Drops the panic's payload, whose drop may panic as well; the payload of that second panic is
/// leaked, because its drop could panic a third time.
pub(crate) fn reason_of(what: &str, panic: Box<dyn Any + Send>) -> DeadReason {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let text = text.unwrap_or("without a message");
    let reason = DeadReason::new(Stage::Panic, format!("{what} panicked: {text}"));
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        // Its drop would be the third try.
        std::mem::forget(second);
    }
    reason
}

/// Drops `value`. A panic in its drop is only logged: the record's outcome is decided already.
pub(crate) fn drop_caught<T>(what: &str, value: T) {
    if let Err(reason) = caught(what, || drop(value)) {
        tracing::error!(
            reason = reason.message,
            "a drop panicked; nothing else is affected"
        );
    }
}

/// A value of a service, such as its handler, whose drop cannot unwind.
///
/// The value is present until the drop.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Some(value))
    }

    /// A clone of the value, or the panic of its `Clone`.
    pub(crate) fn cloned(&self) -> Result<T, DeadReason>
    where
        T: Clone,
    {
        let copy = caught("cloning the handler", || self.0.clone())?;
        copy.ok_or_else(|| DeadReason::new(Stage::Handler, "the handler is gone"))
    }

    /// The value itself, replaced by a clone: the caller receives the instance that has waited in
    /// the queues of its layers.
    pub(crate) fn replace_with_clone(&mut self) -> Result<T, DeadReason>
    where
        T: Clone,
    {
        let copy = self.cloned()?;
        self.0.replace(copy).map_or_else(|| self.cloned(), Ok)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        if let Some(value) = self.0.take() {
            drop_caught("dropping the handler", value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::panic_any;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in the drop");
        }
    }

    struct Nested(#[allow(dead_code, reason = "dropped, and that is all")] Bomb);

    fn message<T>(code: impl FnOnce() -> T) -> String {
        match caught("the code", code) {
            Ok(_) => String::new(),
            Err(reason) => {
                assert_eq!(reason.stage, Stage::Panic);
                reason.message
            }
        }
    }

    #[test]
    fn a_panic_is_reported_with_its_text() {
        assert_eq!(message(|| 1), "");
        assert_eq!(message(|| panic!("a {}", "b")), "the code panicked: a b");
        assert_eq!(message(|| panic!("c")), "the code panicked: c");
        assert_eq!(
            message(|| panic_any(7)),
            "the code panicked: without a message"
        );
    }

    #[test]
    fn a_panic_payload_may_panic_when_dropped() {
        let expected = "the code panicked: without a message";
        assert_eq!(message(|| panic_any(Bomb)), expected);
        assert_eq!(message(|| panic_any(Nested(Bomb))), expected);
        struct Again;
        impl Drop for Again {
            fn drop(&mut self) {
                panic_any(Bomb)
            }
        }
        assert_eq!(message(|| panic_any(Again)), expected);
    }

    #[test]
    fn a_guarded_value_never_unwinds_when_it_is_dropped() {
        drop(Guarded::new(Bomb));
        assert_eq!(
            message(|| drop(Bomb)),
            "the code panicked: in the drop",
            "the same, unguarded"
        );
    }
}
