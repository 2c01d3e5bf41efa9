//! Captures the output of a subscriber, for tests.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use tracing::Dispatch;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Format;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FormatEvent, FormatFields, SubscriberBuilder};
use tracing_subscriber::registry::Registry;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The output of `subscriber` for the log lines of `run` on this thread.
pub(crate) fn capture<Fields, L, T>(
    subscriber: SubscriberBuilder<Fields, Format<L, T>, LevelFilter>,
    run: impl FnOnce(),
) -> String
where
    Fields: for<'w> FormatFields<'w> + Send + Sync + 'static,
    Format<L, T>: FormatEvent<Registry, Fields> + Send + Sync + 'static,
{
    let subscriber = subscriber.with_ansi(false);
    capture_by(|writer| subscriber.with_writer(writer).finish(), run)
}

/// The output for the log lines of `run` on this thread of the subscriber that `build` creates to
/// write to its argument.
pub(crate) fn capture_by<S: Into<Dispatch>>(
    build: impl FnOnce(BoxMakeWriter) -> S,
    run: impl FnOnce(),
) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber = build(BoxMakeWriter::new(move || writer.clone()));
    tracing::dispatcher::with_default(&subscriber.into(), run);
    let bytes = std::mem::take(&mut *buffer.0.lock().unwrap());
    String::from_utf8(bytes).unwrap()
}
