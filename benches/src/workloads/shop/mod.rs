//! `shop`: the programs of the shop, end to end, as the demo starts them: five services, three of
//! them twice, and the payment provider. The gateways are left out: they have workloads of their
//! own, and orders are published to their topic here.
//!
//! - `evenkeel`: daemons with their default durability, which waits for the disk
//! - `evenkeel-process-crash`: daemons with `--durability process-crash`
//!
//! An order has 12 effects: one in `payments` and `inventory` each, two in `shipping`, four in
//! `notifications` and `orderboard` each. In the report an effect is a message.
//!
//! **The capacity** is that of a backlog: `--records` orders are published at once, and the value
//! is their number divided by the time from the first publication to the last effect of any. It is
//! the rate above which lag grows: a shop that lags is busy without a pause, as it is here. Raising
//! a rate in steps would need a threshold for "grows", and many steps of many seconds, each of
//! which another load on the machine can spoil. A backlog has a fixed amount of work, so it ends by
//! itself. The start and the end of the backlog, when not every service has work, make the value
//! too low rather than too high.
//!
//! **The latency** of an order is the time from its publication until this process has read
//! `ShipmentDispatched`, at 25, 50 and 90 % of that capacity. `at_90_growth_ms` checks the
//! capacity: it is how much the median of the later half is above that of the earlier one, and
//! large if lag grows.
//!
//! **Processor time** is that of all processes but Kafka, this one among them, by effect of the
//! backlog; details such as `payments-1_us` are the share of each process in it. `at_25_us` and its
//! like are the sums at these rates, where groups of effects are smaller.
//!
//! Orders of a warm-up come first. At the end the daemons are stopped, and every order must have
//! had each of its effects once.
//!
//! - [`services`], [`programs`]: what runs; [`processes`], [`guard`]: starts and ends it
//! - [`topics`], [`orders`]: what is published and read; [`effects`]: counts and checks
//! - [`cost`]: processor time by process

mod cost;
mod effects;
pub(super) mod guard;
mod orders;
mod processes;
mod programs;
mod services;
mod topics;

use crate::measure::steady_rate::{LatencyTracker, SteadyRate};
use crate::spec::{Aim, Bound, Contestant, Data, Figure, Form, Plan, Spec, Turn};
use cost::Cost;
use effects::Effects;
use orders::{Orders, number_of};
use processes::Shop;
use programs::PROCESS_CRASH;
use services::effects_of_order;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use topics::Dispatches;

/// The backlog, unless the user chooses another number of orders. The topics of the shop declare
/// their partitions, and every order is a key.
pub(crate) const DATA: Data = Data {
    records: 20_000,
    size: 328,
    partitions: 1,
    keys: 1,
    form: Form::Event,
};
/// Orders before those that are measured: a Kafka that has just started compiles itself meanwhile.
const WARM_UP: u64 = 5_000;
/// Shares of the capacity in percent.
const SHARES: [u64; 3] = [25, 50, 90];
/// Of each share: the time that does not count, and the time that does.
const SETTLING: Duration = Duration::from_secs(3);
const COUNTED: Duration = Duration::from_secs(20);

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    let names = ["evenkeel", PROCESS_CRASH];
    let aims = names.into_iter().flat_map(|name| {
        [
            Aim::new(name, Figure::Value, Bound::AtLeast(1_000.0)),
            Aim::new(name, Figure::UsPerMessage, Bound::AtMost(120.0)),
        ]
    });
    Plan {
        title: "orders from publication to dispatch in the whole shop; µs of an effect".to_owned(),
        unit: "orders/s",
        contestants: names.map(contestant).into(),
        aims: aims.collect(),
        runs: 1,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    let directory = tempfile::tempdir()?;
    topics::prepare(spec).await?;
    let shop = Shop::start(spec, directory.path()).await?;
    let orders = Orders::new(spec)?;
    let effects = Effects::open(directory.path(), orders.run()).await?;
    let mut load = Load {
        spec,
        shop,
        orders,
        effects,
        placed: 0,
    };
    load.warm_up().await?;
    let mut turn = load.backlog(spec.data.records).await?;
    for share in SHARES {
        let details = load.at_share(share, turn.value).await?;
        turn.details.extend(details);
    }
    turn.rss_mib = load.shop.resident_max_mib()?;
    load.finish().await?;
    Ok(turn)
}

/// The shop, and what is done to it.
struct Load<'a> {
    spec: &'a Spec,
    shop: Shop,
    orders: Orders,
    effects: Effects,
    /// The number of orders so far.
    placed: u64,
}

impl Load<'_> {
    /// Delivers the stock, and places orders until every service has handled some.
    async fn warm_up(&mut self) -> anyhow::Result<()> {
        self.orders.deliver_stock().await?;
        self.wait_for_effects().await?;
        self.place_at_once(WARM_UP).await?;
        self.wait_for_effects().await
    }

    /// Places a backlog. Returns the turn with the capacity and the processor time.
    async fn backlog(&mut self, orders: u64) -> anyhow::Result<Turn> {
        let before = self.shop.readings();
        self.place_at_once(orders).await?;
        self.wait_for_effects().await?;
        let cost = self.shop.readings().since(&before)?;
        let seconds = cost.wall().as_secs_f64();
        eprintln!("{orders} orders within {seconds:.1} s");
        Ok(figures(orders, &cost))
    }

    /// Places orders at this share of the capacity. Returns the latencies and the processor time.
    async fn at_share(
        &mut self,
        share: u64,
        capacity: f64,
    ) -> anyhow::Result<BTreeMap<String, f64>> {
        let rate = SteadyRate {
            per_second: ((capacity * share as f64 / 100.0) as u64).max(1),
            warm_up: SETTLING,
            counted_time: COUNTED,
        };
        eprintln!("{share} %: {} orders/s", rate.per_second);
        let tracker = Arc::new(LatencyTracker::new(rate));
        let first = self.placed;
        let dispatches = self.track(&tracker, first).await?;
        self.placed += tracker.records();
        let before = self.shop.readings();
        let orders = &self.orders;
        tracker
            .publish(|number| orders.place(first + number))
            .await?;
        self.wait_for_effects().await?;
        let cost = self.shop.readings().since(&before)?;
        tracker.wait_until_handled().await?;
        tracker.fail_on_duplicates()?;
        dispatches.end().await?;
        let mut details = latencies(&tracker, share);
        let effects = tracker.records() * effects_of_order();
        details.insert(format!("at_{share}_us"), cost.us_per_effect(effects));
        Ok(details)
    }

    /// Tells the tracker of each dispatched order. `first` is the number of its first order.
    async fn track(&self, tracker: &Arc<LatencyTracker>, first: u64) -> anyhow::Result<Dispatches> {
        let (tracker, run) = (Arc::clone(tracker), self.orders.run().to_owned());
        let arrived = move |key: &[u8]| {
            let number = number_of(&run, key).and_then(|number| number.checked_sub(first));
            if let Some(number) = number {
                tracker.number_handled(number);
            }
        };
        Dispatches::read(self.spec, arrived).await
    }

    async fn place_at_once(&mut self, orders: u64) -> anyhow::Result<()> {
        let first = self.placed;
        self.placed += orders;
        for number in first..self.placed {
            self.orders.place(number).await?;
        }
        Ok(())
    }

    /// Waits until all orders so far have all their effects.
    async fn wait_for_effects(&mut self) -> anyhow::Result<()> {
        self.orders.flush().await?;
        let shop = &mut self.shop;
        self.effects.wait_for(self.placed, || shop.check()).await
    }

    /// Stops the shop, and checks the effects.
    async fn finish(mut self) -> anyhow::Result<()> {
        self.shop.stop().await?;
        self.effects.check_once(self.placed).await
    }
}

/// The turn of a backlog, without its memory.
fn figures(orders: u64, cost: &Cost) -> Turn {
    let effects = orders * effects_of_order();
    Turn {
        value: orders as f64 / cost.wall().as_secs_f64(),
        us_per_message: Some(cost.us_per_effect(effects)),
        rss_mib: 0.0,
        details: cost.shares(effects),
    }
}

/// Percentiles of the latency, and its growth from the earlier half of the orders to the later.
fn latencies(tracker: &LatencyTracker, share: u64) -> BTreeMap<String, f64> {
    let prefix = format!("at_{share}_");
    let mut details = tracker.latency(&prefix, |_| true);
    let middle = tracker.records() - tracker.counted() / 2;
    let median = |select: &dyn Fn(u64) -> bool| tracker.latency("", select)["p50_ms"];
    let growth = median(&|number| number >= middle) - median(&|number| number < middle);
    details.insert(format!("{prefix}growth_ms"), growth);
    details
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_durabilities_have_both_aims() {
        let plan = plan();
        assert_eq!((plan.contestants.len(), plan.aims.len()), (2, 4));
    }

    #[tokio::test(start_paused = true)]
    async fn latencies_have_the_name_of_their_share() {
        let tracker = LatencyTracker::new(SteadyRate {
            per_second: 10,
            warm_up: Duration::ZERO,
            counted_time: Duration::from_secs(2),
        });
        let place = |number| {
            tracker.number_handled(number);
            std::future::ready(Ok(()))
        };
        tracker.publish(place).await.expect("placed");
        let details = latencies(&tracker, 90);
        let names: Vec<&str> = details.keys().map(String::as_str).collect();
        let expected = [
            "at_90_growth_ms",
            "at_90_max_ms",
            "at_90_p50_ms",
            "at_90_p99_ms",
        ];
        assert_eq!(names, expected);
    }
}
