//! The lines of a command on standard error.

use std::fmt;

/// Prints a line to standard error, with the command's name in front.
macro_rules! say {
    ($($argument:tt)*) => {
        $crate::output::stderr::line(format_args!($($argument)*))
    };
}
pub(crate) use say;

/// Writes a line at once. Control characters in names, reasons and error texts are escaped, so that
/// they can neither control the terminal nor look like another line. A closed standard error is
/// ignored.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    evenkeel::telemetry::say(&format!("evenkeel: {text}"));
}
