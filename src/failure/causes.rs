//! The chain of errors that an error wraps.

use std::error::Error;

/// An error and the errors that it wraps, up to a limit: a `source` may lead back to itself.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |cause| wrapped(*cause)).take(CAUSES_MAX)
}

/// The error that an error wraps. The `source` of an I/O error is that of the error in it, not the
/// error in it.
pub(crate) fn wrapped<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    let io = error.downcast_ref::<std::io::Error>();
    match io.and_then(std::io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The most causes of an error that are reported and classified: a `source` may lead back to
/// itself.
pub(crate) const CAUSES_MAX: usize = 32;
