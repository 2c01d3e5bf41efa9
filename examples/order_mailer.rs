//! A whole service: writes one mail per order into its table, whatever crashes or is redelivered.

use evenkeel::consumer::{Consumer, ConsumerSettings};
use evenkeel::event::{Event, EventType};
use evenkeel::handler::{HandlerError, Router};
use evenkeel::inbox::{SqliteInbox, SqliteTx};
use evenkeel::kafka::KafkaConfig;
use evenkeel::sqlx;
use evenkeel::telemetry::daemon::{Daemon, DaemonSettings};
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Serialize, Deserialize)]
struct OrderPlaced {
    order_id: String,
    customer_id: String,
}

impl EventType for OrderPlaced {
    const TYPE: &'static str = "shop.order-placed.v1";
    const TOPIC: &'static str = "shop.orders";
    fn key(&self) -> String {
        self.order_id.clone()
    }
}

const MAILS: &str = "CREATE TABLE IF NOT EXISTS mails (recipient TEXT, order_id TEXT)";

async fn write_mail(order: Event<OrderPlaced>, mut tx: SqliteTx) -> Result<(), HandlerError> {
    sqlx::query("INSERT INTO mails (recipient, order_id) VALUES (?, ?)")
        .bind(order.data.customer_id)
        .bind(order.data.order_id)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let daemon = Daemon::start(DaemonSettings::new("order-mailer")).await?;
    let inbox = SqliteInbox::open(Path::new("order-mailer.db"), "order-mailer", MAILS).await?;
    let router = Router::new().on(write_mail).with_inbox(inbox);
    let settings = ConsumerSettings::new("order-mailer", [OrderPlaced::TOPIC]);
    let consumer = Consumer::new(KafkaConfig::from_env()?, settings, router)?;
    let report = consumer.with_health(daemon.health).run(daemon.stop).await?;
    println!("{} records settled", report.settled);
    Ok(())
}
