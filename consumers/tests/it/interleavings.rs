//! All decisions of the shop, without Kafka. Every service reads its declared topics at a random
//! pace, in the order of each key. With any pace, every order must reach a final state.

use evenkeel::event::EventType;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use shop_consumers::daemon::Service;
use shop_consumers::effect_journal::{self, Effect};
use shop_consumers::inventory::{self, Answer};
use shop_consumers::orderboard::{self, State, Telling};
use shop_consumers::payments::{self, Decision};
use shop_consumers::shipping::{self, Fact};
use shop_schemas::*;
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use std::collections::{BTreeMap, BTreeSet};

const SEEDS: u64 = 40;
const ORDERS: usize = 12;

/// The effect of every event: the journal accepts equal ones.
pub(crate) const EFFECT: Effect<'static> = Effect {
    source: "/test",
    id: "e-1",
    ty: "test.v1",
    topic: "tests",
    partition: 0,
    offset: 0,
    key: None,
};

/// Topic and key: events of one lane keep their order.
type Lane = (&'static str, String);

macro_rules! shop_events {
    ($($variant:ident($event:ident),)*) => {
        #[derive(Debug, Clone)]
        enum ShopEvent {
            $($variant($event),)*
        }

        $(impl From<$event> for ShopEvent {
            fn from(event: $event) -> Self {
                Self::$variant(event)
            }
        })*

        impl ShopEvent {
            fn lane(&self) -> Lane {
                match self {
                    $(Self::$variant(event) => ($event::TOPIC, event.key()),)*
                }
            }

            fn ty(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => $event::TYPE,)*
                }
            }
        }
    };
}

shop_events! {
    Placed(OrderPlaced),
    Cancelled(OrderCancelled),
    Received(StockReceived),
    Reserved(StockReserved),
    Rejected(StockRejected),
    Released(StockReleased),
    Authorized(PaymentAuthorized),
    Declined(PaymentDeclined),
    Dispatched(ShipmentDispatched),
}

/// The services and their unread events, by lane.
struct Shop {
    payments: SqliteConnection,
    inventory: SqliteConnection,
    shipping: SqliteConnection,
    orderboard: SqliteConnection,
    unread: BTreeMap<(&'static str, Lane), Vec<ShopEvent>>,
    published: Vec<ShopEvent>,
}

async fn store(service: &Service) -> SqliteConnection {
    let mut store = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let schema = [effect_journal::SCHEMA, service.schema].concat();
    sqlx::raw_sql(AssertSqlSafe(schema))
        .execute(&mut store)
        .await
        .unwrap();
    store
}

impl Shop {
    async fn open() -> Self {
        Self {
            payments: store(&payments::SERVICE).await,
            inventory: store(&inventory::SERVICE).await,
            shipping: store(&shipping::SERVICE).await,
            orderboard: store(&orderboard::SERVICE).await,
            unread: BTreeMap::new(),
            published: Vec::new(),
        }
    }

    fn publish(&mut self, event: impl Into<ShopEvent>) {
        let event = event.into();
        let lane = event.lane();
        let topic = topics().iter().find(|topic| topic.name == lane.0).unwrap();
        for service in &topic.consumers {
            let events = self.unread.entry((service, lane.clone())).or_default();
            events.push(event.clone());
        }
        self.published.push(event);
    }

    /// Lets a random service handle the next event of a random lane. Returns false if none is left.
    async fn step(&mut self, random: &mut StdRng) -> bool {
        let lanes: Vec<_> = self.unread.keys().cloned().collect();
        let Some(lane) = lanes.choose(random) else {
            return false;
        };
        let events = self.unread.get_mut(lane).unwrap();
        let event = events.remove(0);
        if events.is_empty() {
            self.unread.remove(lane);
        }
        match lane.0 {
            "payments" => self.pay(event).await,
            "inventory" => self.stock(event).await,
            "shipping" => self.ship(event).await,
            "orderboard" => self.board(event).await,
            _ => {}
        }
        true
    }

    async fn pay(&mut self, event: ShopEvent) {
        match event {
            ShopEvent::Placed(event) => {
                match payments::decide(&mut self.payments, EFFECT, &event, None).await {
                    Ok(Some(Decision::Authorized(event))) => self.publish(event),
                    Ok(Some(Decision::Declined(event))) => self.publish(event),
                    other => panic!("not decided: {other:?}"),
                }
            }
            ShopEvent::Cancelled(event) => {
                payments::void(&mut self.payments, EFFECT, &event)
                    .await
                    .unwrap();
            }
            _ => {}
        }
    }

    async fn stock(&mut self, event: ShopEvent) {
        let store = &mut self.inventory;
        let over = match event {
            ShopEvent::Received(event) => {
                return inventory::receive(store, EFFECT, &event).await.unwrap();
            }
            ShopEvent::Placed(event) => {
                return match inventory::reserve(store, EFFECT, &event).await {
                    Ok(Some(Answer::Reserved(event))) => self.publish(event),
                    Ok(Some(Answer::Rejected(event))) => self.publish(event),
                    other => panic!("not answered: {other:?}"),
                };
            }
            ShopEvent::Cancelled(event) => event.order_id,
            ShopEvent::Declined(event) => event.order_id,
            _ => return,
        };
        if let Some(event) = inventory::release(store, EFFECT, &over, "over")
            .await
            .unwrap()
        {
            self.publish(event);
        }
    }

    async fn ship(&mut self, event: ShopEvent) {
        let (order_id, fact) = match event {
            ShopEvent::Authorized(event) => (event.order_id, Fact::Authorized(event.authorization)),
            ShopEvent::Reserved(event) => (event.order_id, Fact::Reserved(event.lines)),
            ShopEvent::Released(event) => (event.order_id, Fact::Barred(event.reason)),
            ShopEvent::Cancelled(event) => (event.order_id, Fact::Barred(event.reason)),
            _ => return,
        };
        let dispatched = shipping::learn(&mut self.shipping, EFFECT, &order_id, fact)
            .await
            .unwrap();
        if let Some(event) = dispatched {
            self.publish(event);
        }
    }

    async fn board(&mut self, event: ShopEvent) {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let fact = match &event {
            ShopEvent::Placed(event) => event.new_fact(EFFECT, at),
            ShopEvent::Cancelled(event) => event.new_fact(EFFECT, at),
            ShopEvent::Reserved(event) => event.new_fact(EFFECT, at),
            ShopEvent::Rejected(event) => event.new_fact(EFFECT, at),
            ShopEvent::Released(event) => event.new_fact(EFFECT, at),
            ShopEvent::Authorized(event) => event.new_fact(EFFECT, at),
            ShopEvent::Declined(event) => event.new_fact(EFFECT, at),
            ShopEvent::Dispatched(event) => event.new_fact(EFFECT, at),
            ShopEvent::Received(_) => return,
        };
        let states = orderboard::learn(&mut self.orderboard, &[fact]).await;
        assert!(states.unwrap()[0].is_ok());
    }

    /// Orders with an event of this type. Each has at most one.
    fn orders(&self, ty: &str) -> BTreeSet<String> {
        let events = self.published.iter().filter(|event| event.ty() == ty);
        let all: Vec<String> = events.map(|event| event.lane().1).collect();
        let distinct: BTreeSet<String> = all.iter().cloned().collect();
        assert_eq!(all.len(), distinct.len(), "{ty} twice: {all:?}");
        distinct
    }
}

fn placed(order: usize, random: &mut StdRng) -> OrderPlaced {
    let line = |article: &str, quantity| OrderLine {
        article: article.to_owned(),
        quantity,
        price_cents: 100,
    };
    OrderPlaced {
        order_id: format!("o-{order}"),
        customer_id: "c-1".to_owned(),
        lines: vec![line("tea", random.random_range(1..4)), line("rice", 1)],
        total_cents: if random.random_bool(0.3) {
            600_000
        } else {
            400
        },
        placed_at: "2026-01-01T00:00:00Z".to_owned(),
    }
}

/// Publishes orders, some cancelled, and deliveries, while the services read.
async fn played(seed: u64) -> Shop {
    let mut random = StdRng::seed_from_u64(seed);
    let mut shop = Shop::open().await;
    for order in 0..ORDERS {
        for article in ["tea", "rice"] {
            shop.publish(StockReceived {
                article: article.to_owned(),
                quantity: random.random_range(1..3),
                delivery_id: format!("d-{order}"),
            });
        }
        let event = placed(order, &mut random);
        let order_id = event.order_id.clone();
        shop.publish(event);
        for _ in 0..random.random_range(0..30) {
            shop.step(&mut random).await;
        }
        if random.random_bool(0.4) {
            let reason = "changed my mind".to_owned();
            shop.publish(OrderCancelled { order_id, reason });
        }
    }
    while shop.step(&mut random).await {}
    shop
}

#[tokio::test]
async fn every_order_ends_whatever_the_pace_of_the_services() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let mut shop = played(seed).await;
        let found = inventory::audit(&mut shop.inventory).await.unwrap();
        assert_eq!(found, [], "seed {seed}");
        let reserved = shop.orders(StockReserved::TYPE);
        let released = shop.orders(StockReleased::TYPE);
        let authorized = shop.orders(PaymentAuthorized::TYPE);
        let dispatched = shop.orders(ShipmentDispatched::TYPE);
        assert!(released.is_subset(&reserved), "seed {seed}");
        let ready: BTreeSet<_> = reserved.intersection(&authorized).cloned().collect();
        assert!(dispatched.is_subset(&ready), "seed {seed}");
        for order in reserved.difference(&released) {
            assert!(
                dispatched.contains(order),
                "seed {seed}: {order} holds stock for nothing"
            );
        }
        let lines = orderboard::queries::orders(&mut shop.orderboard, None)
            .await
            .unwrap();
        assert_eq!(lines.len(), ORDERS);
        for line in lines {
            let state: State = line.state.parse().unwrap();
            let over = [
                State::Shipped,
                State::Cancelled,
                State::Declined,
                State::Rejected,
            ];
            assert!(
                over.contains(&state),
                "seed {seed}: {} is {}",
                line.order_id,
                line.state
            );
            seen.insert(state);
        }
    }
    assert_eq!(seen.len(), 4, "the seeds must reach every end: {seen:?}");
}
