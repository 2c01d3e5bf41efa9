//! The filter of the log.
//!
//! `EnvFilter` takes a lock, shared by all threads, whenever a span is created, entered, left or
//! closed: a directive such as `[process{id=7}]=debug` enables lines by the spans around them. Most
//! filters have no such directive. For them it is not told of spans, which saves a consumer many
//! of these locks for each record.

use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::{EnvFilter, Layer};

/// An `EnvFilter`, for the whole subscriber or for one layer. It enables the same lines and spans.
pub(super) struct LogFilter {
    filter: EnvFilter,
    /// Whether a directive depends on spans.
    follows_spans: bool,
}

impl LogFilter {
    pub(super) fn new(filter: EnvFilter) -> Self {
        // Spans and fields are in brackets, which occur nowhere else in a directive.
        let follows_spans = filter.to_string().contains('[');
        Self {
            filter,
            follows_spans,
        }
    }

    /// The filter, if it is to be told of spans.
    fn of_spans(&self) -> Option<&EnvFilter> {
        self.follows_spans.then_some(&self.filter)
    }
}

impl<S: Subscriber> Layer<S> for LogFilter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        Layer::<S>::register_callsite(&self.filter, metadata)
    }

    fn enabled(&self, metadata: &Metadata<'_>, ctx: Context<'_, S>) -> bool {
        self.filter.enabled(metadata, ctx)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        if let Some(filter) = self.of_spans() {
            filter.on_new_span(attributes, id, ctx);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        if let Some(filter) = self.of_spans() {
            filter.on_record(id, values, ctx);
        }
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        if let Some(filter) = self.of_spans() {
            filter.on_enter(id, ctx);
        }
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        if let Some(filter) = self.of_spans() {
            filter.on_exit(id, ctx);
        }
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        if let Some(filter) = self.of_spans() {
            filter.on_close(id, ctx);
        }
    }
}

impl<S: Subscriber> Filter<S> for LogFilter {
    fn enabled(&self, metadata: &Metadata<'_>, ctx: &Context<'_, S>) -> bool {
        self.filter.enabled(metadata, ctx.clone())
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        Filter::<S>::callsite_enabled(&self.filter, metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        self.filter.max_level_hint()
    }

    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, ctx: Context<'_, S>) {
        Layer::on_new_span(self, attributes, id, ctx);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, ctx: Context<'_, S>) {
        Layer::on_record(self, id, values, ctx);
    }

    fn on_enter(&self, id: &Id, ctx: Context<'_, S>) {
        Layer::on_enter(self, id, ctx);
    }

    fn on_exit(&self, id: &Id, ctx: Context<'_, S>) {
        Layer::on_exit(self, id, ctx);
    }

    fn on_close(&self, id: Id, ctx: Context<'_, S>) {
        Layer::on_close(self, id, ctx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directives_about_spans_and_fields_follow_spans() {
        for (directives, expected) in [
            ("info", false),
            ("off", false),
            ("info,evenkeel::process=off,sqlx=warn", false),
            ("info,[process]=debug", true),
            ("info,evenkeel[process{id=7}]=debug", true),
            ("info,[{id}]=debug", true),
        ] {
            let filter = LogFilter::new(EnvFilter::new(directives));
            assert_eq!(filter.follows_spans, expected, "{directives}");
        }
    }
}
