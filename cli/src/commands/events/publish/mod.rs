//! `evenkeel publish`: publishes events from flags or lines, validated against their schema and
//! acknowledged by the brokers.
//!
//! - [`payload`]: JSON from flags, and values at a pointer; [`draft`]: an event from a payload
//! - [`run`]: sends, receives receipts, and decides how the command ends
//!
//! Everything that would fail for every line is rejected before the first line is read: the type,
//! the topic, the key rule and the connection. The first bad line ends the input, unless
//! `--keep-going` is given; events that were sent by then are still awaited.

mod draft;
mod payload;
mod run;

use crate::arguments::catalogue::{CatalogueArgs, known_types};
use crate::arguments::connection::ConnectionArgs;
use crate::input_lines;
use crate::output::OutputArgs;
use clap::{Args, ValueEnum};
use draft::{Drafter, KeyRule};
use evenkeel::event::ContentMode;
use evenkeel::publisher::{Publisher, PublisherSettings};
use evenkeel_program::exit::{Ending, Usage};
use evenkeel_program::stop::Stop;
use run::Source;
use std::path::PathBuf;

/// Publish events, and wait for the brokers' acknowledgement.
///
/// The payload comes from --data or --json, or from standard input with one JSON object per line. A
/// line is a payload or a complete CloudEvent in JSON, whose id and source are kept. Each payload
/// is validated against the schema of its type before it is sent. A receipt per event goes to
/// standard output.
///
/// A payload gets a new id each time, so repeating the command publishes a new event. A CloudEvent
/// with its own id is the same event when it is published again.
///
/// Exit codes: 0 all were acknowledged; 1 some were not published; 5 it is unknown whether the
/// brokers have some of them, and each is named.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Event type, for example shop.order-cancelled.v1. Without it, every line must be a complete
    /// CloudEvent.
    #[arg(value_name = "TYPE")]
    ty: Option<String>,

    /// A field of the payload; may be repeated. The value is JSON, or text if the schema requires
    /// text.
    #[arg(
        short,
        long,
        value_name = "NAME=VALUE",
        requires = "ty",
        conflicts_with = "json"
    )]
    data: Vec<String>,

    /// The payload as JSON text.
    #[arg(long, value_name = "PAYLOAD", requires = "ty")]
    json: Option<String>,

    /// Read lines from this file; - is standard input.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["data", "json"])]
    from_file: Option<PathBuf>,

    /// Topic [default: the one declared for the type].
    #[arg(short, long)]
    topic: Option<String>,

    /// Record key of every event [default: the field declared for the type].
    #[arg(short, long, conflicts_with_all = ["key_field", "no_key"])]
    key: Option<String>,

    /// JSON pointer to the record key in the payload, for example /order_id.
    #[arg(long, value_name = "POINTER", conflicts_with = "no_key")]
    key_field: Option<String>,

    /// Publish without a key: to any partition, in no order.
    #[arg(long)]
    no_key: bool,

    /// CloudEvents source of payloads.
    #[arg(long, default_value = "/evenkeel/cli")]
    source: String,

    /// CloudEvents subject of payloads [default: the key].
    #[arg(long)]
    subject: Option<String>,

    /// CloudEvents content mode: where the attributes are.
    #[arg(long, value_enum, default_value = "binary", value_name = "MODE")]
    ce: Mode,

    /// Continue after a line that cannot be published. Without this flag, the first such line ends
    /// the input.
    #[arg(long)]
    keep_going: bool,

    #[command(flatten)]
    output: OutputArgs,

    #[command(flatten)]
    catalogue: CatalogueArgs,

    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// CloudEvents content mode: binary has the attributes in headers, structured has them in the
/// value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Attributes in headers.
    Binary,
    /// One JSON object in the value.
    Structured,
}

/// Publishes the events of the arguments until the input ends, an event fails, or a signal arrives.
pub(crate) async fn run(args: PublishArgs, stop: Stop) -> anyhow::Result<Ending> {
    let connection = args.connection.clone();
    let kafka = connection.kafka()?;
    let keep_going = args.keep_going;
    let output = args.output;
    let (drafter, source) = prepare(args)?;
    // Connecting also reports unreachable brokers: a publisher would retry.
    let admin = connection.admin_to_change().await?;
    if let Some(topic) = drafter.topic() {
        run::require_topic(&admin, topic).await?;
    }
    let publisher = Publisher::new(&kafka, PublisherSettings::new("/evenkeel/cli"))?;
    let patience = connection.timeout();
    run::Run::new(publisher, admin, drafter, output, keep_going)
        .publish_all(source, stop, patience)
        .await
}

/// Validates the arguments. Rejects settings that would fail for every line.
fn prepare(args: PublishArgs) -> anyhow::Result<(Drafter, Source)> {
    let catalogue = args.catalogue.load()?;
    if let Some(ty) = &args.ty
        && catalogue.schema(ty).is_none()
    {
        let known = known_types(&catalogue);
        return Err(Usage(format!("no schema for event type {ty}; there are: {known}")).into());
    }
    let source = match (&args.ty, &args.json) {
        (_, Some(text)) => Source::Payload(payload::parse(text.as_bytes()).map_err(Usage)?),
        (Some(ty), None) if !args.data.is_empty() => {
            Source::Payload(payload::from_fields(&catalogue, ty, &args.data).map_err(Usage)?)
        }
        _ => Source::Lines(input_lines::open(args.from_file)?),
    };
    let key = match (args.key, args.key_field) {
        (Some(key), _) => KeyRule::Fixed(key),
        (None, Some(pointer)) if pointer.is_empty() || pointer.starts_with('/') => {
            KeyRule::At(pointer)
        }
        (None, Some(pointer)) => {
            let text = format!("{pointer} is not a JSON pointer: it must begin with /");
            return Err(Usage(text).into());
        }
        (None, None) if args.no_key => KeyRule::None,
        (None, None) => KeyRule::Declared,
    };
    let drafter = Drafter {
        catalogue,
        ty: args.ty,
        topic: args.topic,
        key,
        source: args.source,
        subject: args.subject,
        mode: match args.ce {
            Mode::Binary => ContentMode::Binary,
            Mode::Structured => ContentMode::Structured,
        },
    };
    drafter.check().map_err(Usage)?;
    Ok((drafter, source))
}
