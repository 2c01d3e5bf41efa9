//! The contestants `evenkeel` and `evenkeel-batch`: an inbox and an outbox in PostgreSQL, and the
//! relay in the same process, as services have them.

use super::tables;
use super::work::{EffectBooked, SOURCE, Unit, Work, stop_by_signal};
use crate::order_event::OrderEvent;
use crate::spec::Spec;
use ::evenkeel::consumer::{Consumer, ConsumerSettings};
use ::evenkeel::event::Event;
use ::evenkeel::handler::{Context, Delivered, HandlerError, Router};
use ::evenkeel::inbox::{PostgresInbox, PostgresTx};
use ::evenkeel::outbox::{PostgresOutbox, Relay};
use ::evenkeel::publisher::{Publisher, PublisherSettings};
use tokio_util::sync::CancellationToken;

/// Runs until SIGTERM.
pub(super) async fn run(spec: &Spec, work: &Work, unit: Unit) -> anyhow::Result<()> {
    let stop = stop_by_signal()?;
    let outbox = PostgresOutbox::open(&work.database).await?;
    let inbox = PostgresInbox::open(&work.database, "")
        .await?
        .with_outbox(outbox.clone())?;
    let router = match unit {
        Unit::Event => Router::new().on(book),
        Unit::Batch => Router::new().on_batch(book_all),
    };
    let kafka = spec.kafka()?;
    let publisher = Publisher::new(&kafka, PublisherSettings::new(SOURCE))?;
    let mut settings = ConsumerSettings::new(work.group.clone(), [spec.topic.clone()]);
    settings.concurrency = concurrency(unit);
    let consumer =
        Consumer::new(kafka, settings, router.with_inbox(inbox))?.with_publisher(publisher.clone());
    let consuming = Box::pin(consumer.run(stop.clone()));
    let relay = Relay::new(outbox, publisher);
    let relaying = Box::pin(relay.run_then_drain(stop, CancellationToken::new()));
    let consuming = async { anyhow::Ok(consuming.await?) };
    let relaying = async { anyhow::Ok(relaying.await?) };
    tokio::try_join!(consuming, relaying)?;
    Ok(())
}

/// As in the workload `effects`: a batch consists of events that wait while the previous one runs.
fn concurrency(unit: Unit) -> usize {
    match unit {
        Unit::Event => 256,
        Unit::Batch => 1_000,
    }
}

async fn book(
    event: Event<OrderEvent>,
    context: Context,
    mut tx: PostgresTx,
) -> Result<(), HandlerError> {
    tables::insert(&mut tx, &event.data).await?;
    publish(&context, &event.data)
}

async fn book_all(
    events: Vec<Delivered<OrderEvent>>,
    mut tx: PostgresTx,
) -> Result<(), HandlerError> {
    let orders = events.iter().map(|delivered| &delivered.event.data);
    let orders: Vec<&OrderEvent> = orders.collect();
    tables::insert_all(&mut tx, &orders).await?;
    for Delivered { event, context, .. } in &events {
        publish(context, &event.data)?;
    }
    Ok(())
}

fn publish(context: &Context, order: &OrderEvent) -> Result<(), HandlerError> {
    let OrderEvent { key, place, .. } = *order;
    context.publish(EffectBooked { key, place })
}
