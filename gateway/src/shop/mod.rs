//! The shop's own routes: orders are placed and cancelled by their fields, and read from the
//! orderboard's read model.
//!
//! | route | what |
//! |---|---|
//! | `POST /orders` | places an order: an event `shop.order-placed.v1` |
//! | `POST /orders/{id}/cancellation` | cancels one: an event `shop.order-cancelled.v1` |
//! | `GET /orders/{id}` | its state, with the lag of the read model |
//!
//! Everything else is generic: the shop is an example of routes that a team adds for its own events.

mod allow_list;
mod lag;
mod new_order;
mod order_reader;
mod routes;

pub use allow_list::allow_list;
pub use lag::ReadModelLag;
pub use new_order::{cancellation, placement};
pub use order_reader::{OrderAnswer, OrderFact, OrderReader, OrderView};
pub use routes::router;
