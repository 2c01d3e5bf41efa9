//! The chain of errors that an error wraps.
//!
//! Errors come from code of the service, so the chain is bounded ([`CAUSES_MAX`]): a `source` that
//! leads back to itself must not hang a worker.

use std::error::Error;

/// An error and the errors that it wraps, the outermost first. At most [`CAUSES_MAX`].
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| source_of(*cause)).take(CAUSES_MAX)
}

/// The error that an error wraps. The `source` of an I/O error is that of the error in it, not the
/// error in it.
pub(crate) fn source_of<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let io = error.downcast_ref::<std::io::Error>();
    match io.and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The most causes of an error that are reported and classified: a `source` may lead back to
/// itself.
pub(crate) const CAUSES_MAX: usize = 32;
