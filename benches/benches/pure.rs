//! What the pure parts cost a record, each beside its budget: `cargo bench -p evenkeel-bench`.
//!
//! The modules are compiled into this program from the library's sources, as they need nothing else of it. Ends with
//! exit code 1 when a budget is exceeded; as machines differ, no test and no check runs this.

use criterion::{Criterion, Throughput};
use evenkeel::event::{ContentMode, Event, EventType, Headers, decode, encode};
use lanes::{LaneKey, Lanes};
use offset_tracker::{Epoch, OffsetTracker, SettledBits, TrackedBatch};
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

#[allow(dead_code, unreachable_pub, reason = "only what is measured is called")]
#[path = "../../src/consumer/state/commit_metadata/mod.rs"]
mod commit_metadata;
#[allow(dead_code, unreachable_pub, reason = "only what is measured is called")]
#[path = "../../src/consumer/state/lanes.rs"]
mod lanes;
#[allow(dead_code, unreachable_pub, reason = "only what is measured is called")]
#[path = "../../src/consumer/state/offset_tracker/mod.rs"]
mod offset_tracker;

/// Nanoseconds an element, by benchmark.
const BUDGETS: [(&str, f64); 6] = [
    ("lanes_pass", 10.0),
    ("lanes_wait_and_start", 150.0),
    ("offsets_admit_and_settle", 15.0),
    ("offsets_positions", 10.0),
    ("metadata_encode", 30.0),
    ("event_headers_decode", 600.0),
];

const RECORDS: usize = 1_024;

static NAMES: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..RECORDS).map(|number| format!("k{number}")).collect());

fn key(number: usize) -> LaneKey<'static> {
    LaneKey {
        hash: (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        topic: "orders",
        key: NAMES[number].as_bytes(),
    }
}

fn lanes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pure");
    group.throughput(Throughput::Elements(RECORDS as u64));
    // A record that is done at its first poll, while other keys' records run.
    let mut busy: Lanes<u64> = Lanes::default();
    (0..64).for_each(|number| {
        busy.occupy(Some(key(number)));
    });
    group.bench_function("lanes_pass", |bench| {
        bench.iter(|| {
            (64..RECORDS)
                .filter(|number| busy.is_occupied(key(*number)))
                .count()
        });
    });
    group.bench_function("lanes_wait_and_start", |bench| {
        bench.iter(|| {
            let mut lanes: Lanes<usize> = Lanes::default();
            for number in 0..RECORDS {
                // Four records a key.
                lanes.enqueue(number, |number| Some(key(number % (RECORDS / 4))));
            }
            while let Some((lane, record)) = lanes.start_next() {
                black_box(record);
                lanes.finished(lane);
            }
        });
    });
    group.finish();
}

fn batch(first: i64) -> TrackedBatch {
    let mut batch = TrackedBatch::new(RECORDS, Instant::now());
    let epoch = batch.epoch(Epoch(1));
    (0..RECORDS as i64).for_each(|offset| batch.push(epoch, first + offset));
    batch
}

fn offsets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pure");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("offsets_admit_and_settle", |bench| {
        let mut offsets = OffsetTracker::default();
        offsets.assign(Epoch(1), &[]);
        let mut first = 0;
        bench.iter(|| {
            let tracked = offsets.admit(batch(first));
            let mut settled = SettledBits::of(&tracked);
            (0..RECORDS).for_each(|index| settled.add(index));
            first += RECORDS as i64;
        });
    });
    // The oldest record of each batch is slow, all others are settled.
    let mut offsets = OffsetTracker::default();
    offsets.assign(Epoch(1), &[]);
    let mut unfinished = Vec::new();
    for number in 0..4 {
        let tracked = offsets.admit(batch(number * RECORDS as i64));
        (1..RECORDS).for_each(|index| tracked.settle(index));
        unfinished.push(tracked);
    }
    group.throughput(Throughput::Elements(4 * RECORDS as u64));
    group.bench_function("offsets_positions", |bench| {
        bench.iter(|| black_box(offsets.positions()));
    });
    group.finish();
}

fn metadata(criterion: &mut Criterion) {
    let tag = commit_metadata::Tag {
        group: "bench",
        topic: "orders",
        partition: 3,
    };
    let unsettled: Vec<_> = (0..RECORDS as i64)
        .map(|number| number * 4..number * 4 + 1)
        .collect();
    let mut group = criterion.benchmark_group("pure");
    group.throughput(Throughput::Elements(RECORDS as u64));
    group.bench_function("metadata_encode", |bench| {
        bench.iter(|| {
            let next = 4 * RECORDS as i64;
            let log = commit_metadata::Log::default();
            commit_metadata::encode(
                tag,
                log,
                0,
                next,
                black_box(&unsettled),
                commit_metadata::BYTES_MAX,
            )
        });
    });
    group.finish();
}

#[derive(Serialize, Deserialize)]
struct Placed {
    order: String,
}

impl EventType for Placed {
    const TYPE: &'static str = "shop.order-placed.v1";
    const TOPIC: &'static str = "shop.orders";

    fn key(&self) -> String {
        self.order.clone()
    }
}

fn headers(criterion: &mut Criterion) {
    let event = Event::new(
        "/shop/orders",
        Placed {
            order: "o-1".to_owned(),
        },
    );
    let record = encode(&event, ContentMode::Binary, None).expect("it encodes");
    let headers: Headers = record.headers.iter().collect();
    let mut group = criterion.benchmark_group("pure");
    group.throughput(Throughput::Elements(1));
    group.bench_function("event_headers_decode", |bench| {
        bench.iter(|| decode(black_box(headers.iter()), record.value.as_deref()));
    });
    group.finish();
}

/// What criterion estimated for a benchmark, in nanoseconds an element; none when it did not run.
fn measured(folder: &Path, name: &str) -> Option<f64> {
    let read = |file: &str| -> Option<serde_json::Value> {
        let path = folder.join("pure").join(name).join("new").join(file);
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    };
    let nanoseconds = read("estimates.json")?["mean"]["point_estimate"].as_f64()?;
    let elements = read("benchmark.json")?["throughput"]["Elements"].as_f64()?;
    Some(nanoseconds / elements)
}

fn main() -> ExitCode {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    lanes(&mut criterion);
    offsets(&mut criterion);
    metadata(&mut criterion);
    headers(&mut criterion);
    criterion.final_summary();
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    let folder = workspace
        .unwrap_or(Path::new("."))
        .join(target)
        .join("criterion");
    let mut exceeded = false;
    for (name, budget) in BUDGETS {
        let Some(measured) = measured(&folder, name) else {
            continue;
        };
        let verdict = if measured > budget { "OVER" } else { "ok" };
        exceeded |= measured > budget;
        println!("{name:<26} {measured:>8.1} ns, budget {budget:>5.0} ns: {verdict}");
    }
    ExitCode::from(u8::from(exceeded))
}
