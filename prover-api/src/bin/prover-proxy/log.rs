//! Log lines in the form that nodes understand: neptune-core takes the level from the word before the first colon, xnt-core
//! shows lines with `[proxy]`.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

/// Starts logging to standard error.
pub fn start(level: LevelFilter) {
    // The HTTP libraries' own lines are for those who ask for everything.
    let libraries = if level == LevelFilter::TRACE { LevelFilter::TRACE } else { LevelFilter::WARN };
    let targets = Targets::new().with_default(libraries).with_target("prover_api", level).with_target("prover_proxy", level);
    let lines = tracing_subscriber::fmt::layer().event_format(NodeLines).with_writer(std::io::stderr).with_filter(targets);
    tracing_subscriber::registry().with(lines).init();
}

struct NodeLines;

impl<S, N> FormatEvent<S, N> for NodeLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        // One event is one line: what follows a line break would lose its level.
        let text = [line.message, line.fields].concat().replace(['\n', '\r'], " ");
        writeln!(writer, "{}: [proxy] {text}", event.metadata().level())
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string does not fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
