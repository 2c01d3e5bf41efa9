//! A client of the gateway that retries as it is told.
//!
//! [`Client::post`] sends a request with an `Idempotency-Key` until it knows the answer: so an
//! event that was accepted is published once, however often the request was repeated, and at
//! whichever gateway. [`Client::events`] reads a stream, and resumes it where it was cut.
//!
//! ```no_run
//! use evenkeel_gateway::client::{Client, Streamed};
//! use std::time::Duration;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(["http://127.0.0.1:8080"]).with_token("ek_…");
//! let order = serde_json::json!({
//!     "order_id": "o-1",
//!     "customer_id": "c-1",
//!     "lines": [{"article": "article-001", "quantity": 2, "price_cents": 1999}],
//! });
//! let posted = client.post("/orders", &order, "my-request-1", Duration::from_secs(30)).await?;
//! println!("accepted as {}", posted.id);
//!
//! let mut events = client.events(&["shop.shipment-dispatched.v1"], Some("o-1"), None);
//! while let Streamed::Event { ty, data, .. } = events.next().await? {
//!     println!("{ty}: {data}");
//! }
//! # Ok(())
//! # }
//! ```

mod events;
mod post;
mod retry;
mod sse;

pub use events::{EventStream, Streamed};
pub use post::{Client, ClientError, Posted};
