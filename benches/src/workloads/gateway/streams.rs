//! `gateway-streams`: events delivered to 1, 100 and 5,000 clients of server-sent events.
//!
//! All clients stream the same type. When they are connected, their process publishes events as
//! fast as it can. The value is the number of events delivered to all clients, per second from the
//! first received byte to the last. With one client, it is limited by the publisher.
//!
//! `kib_per_client` is the growth of the gateway's resident memory until all clients are connected
//! and idle, `kib_per_client_busy` the highest growth. Both include what clients share: the reader
//! of the topic and the ring of its latest events. The memory of sockets in the kernel is not
//! included.
//!
//! Clients send HTTP/1.0, whose answers have no chunks: each line end is one of the stream's own,
//! and each event has four.

use super::servers::{Durability, Load, Target, gateway};
use crate::measure::result_check::key;
use crate::measure::usage::{UsageReading, resident_max_mib, resident_mib};
use crate::order_event::OrderEvent;
use crate::spec::{Contestant, Data, Plan, Spec, Turn};
use anyhow::{Context, bail};
use evenkeel::event::EventType;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use std::io;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long all clients are connected before the first event is published.
const IDLE: Duration = Duration::from_secs(3);
/// The memory of idle clients is read after this many samples with all of them.
const IDLE_SAMPLES: u32 = 10;
/// Time limit for all events to arrive.
const WITHIN: Duration = Duration::from_secs(120);
/// Deliveries of a turn with more than one client. The events of each find room in the gateway's
/// ring, so that no client reads them from the brokers instead.
const DELIVERIES: usize = 1_000_000;
/// The most events of a turn.
const EVENTS_MAX: usize = 100_000;
/// Line ends of an event, a heartbeat or a gap.
const FRAME_LINES: usize = 4;
/// Line ends at the start of a stream: the time to reconnect, and a heartbeat.
const START_LINES: usize = 2 + FRAME_LINES;
/// Open files of a process beside its clients: more than the 256 that the gateway keeps for others.
const OTHER_FILES: usize = 300;

/// Events, encoded before any client connects.
type Encoded = Vec<(Vec<u8>, OwnedHeaders)>;

pub(crate) fn plan() -> Plan {
    let contestant = |name| Contestant { name, data: None };
    Plan {
        title: "events delivered to clients of server-sent events, by their number".to_owned(),
        unit: "events/s",
        contestants: ["1", "100", "5000"].map(contestant).into(),
        aims: Vec::new(),
        runs: 3,
    }
}

pub(crate) async fn turn(spec: &Spec) -> anyhow::Result<Turn> {
    if let Some((target, load)) = Load::of(spec)? {
        return receive(spec, &target, load.clients).await;
    }
    let clients = clients_possible(spec.contestant.parse()?)?;
    let load = Load::closed(clients, Duration::ZERO, Duration::ZERO);
    let server = gateway(spec, Durability::Brokers, None).await?;
    let before = resident_mib()?;
    let (mut samples, mut idle) = (0, None);
    let sample = |resident: f64| {
        samples += u32::from(server.streams() == clients);
        if samples == IDLE_SAMPLES {
            idle.get_or_insert_with(|| (resident, UsageReading::now()));
        }
    };
    let loaded = server.under(spec, load, sample).await?;
    let end = UsageReading::now();
    let (connected, begin) = idle.context("wrong answer: the clients did not stay connected")?;
    server.stop().await?;
    let deliveries = (clients * events_for(clients)) as f64;
    let per_client = |mib: f64| mib * 1_024.0 / clients as f64;
    let mut turn = loaded.clients;
    let spent = end.since(&begin)?;
    turn.us_per_message = Some(spent.processor.as_secs_f64() * 1e6 / deliveries);
    turn.rss_mib = resident_max_mib()?;
    turn.details.extend([
        ("clients".to_owned(), clients as f64),
        ("kib_per_client".to_owned(), per_client(connected - before)),
        (
            "kib_per_client_busy".to_owned(),
            per_client(loaded.growth_mib),
        ),
    ]);
    Ok(turn)
}

/// The number of events for this number of clients.
fn events_for(clients: usize) -> usize {
    (DELIVERIES / clients).min(EVENTS_MAX)
}

/// As many clients as this process may have open files. Its clients' process may have as many.
fn clients_possible(asked: usize) -> anyhow::Result<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits");
    let limits = limits.context("/proc/self/limits cannot be read: this needs Linux")?;
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|line| line.split_whitespace().next())
        .context("/proc/self/limits has no open files")?;
    // Else it is `unlimited`.
    let files = files.parse().unwrap_or(usize::MAX);
    let possible = asked.min(files.saturating_sub(OTHER_FILES));
    if possible == 0 {
        bail!("{files} open files are too few: raise the limit, such as with `ulimit -n 8192`");
    }
    if possible < asked {
        eprintln!(
            "{possible} clients instead of {asked}: raise the limit of open files, such as with \
             `ulimit -n 8192`"
        );
    }
    Ok(possible)
}

/// Connects the clients, publishes the events, and waits until each client has all of them.
async fn receive(spec: &Spec, target: &Target, clients: usize) -> anyhow::Result<Turn> {
    let events = events_for(clients);
    let encoded = encoded(&spec.data, events)?;
    let mut streams = JoinSet::new();
    for number in 0..clients {
        let socket = connect(target).await;
        let socket = socket.with_context(|| format!("client {number}"))?;
        streams.spawn(receive_all(socket, events * FRAME_LINES));
    }
    tokio::time::sleep(IDLE).await;
    let publish_spec = spec.clone();
    let publishing = tokio::task::spawn_blocking(move || publish(&publish_spec, encoded));
    let publishing = async { publishing.await? };
    let receiving = async {
        let mut received: Vec<Received> = Vec::with_capacity(clients);
        while let Some(client) = streams.join_next().await {
            received.push(client??);
        }
        anyhow::Ok(received)
    };
    let both = async { tokio::try_join!(receiving, publishing) };
    let both = tokio::time::timeout(WITHIN, both).await;
    let (received, ()) = both.context("wrong answer: events did not arrive")??;
    let first = received.iter().map(|client| client.first).min();
    let last = received.iter().map(|client| client.last).max();
    let (first, last) = first.zip(last).context("there is a client")?;
    let bytes: usize = received.iter().map(|client| client.bytes).sum();
    let deliveries = (clients * events) as f64;
    Ok(Turn {
        value: deliveries / (last - first).as_secs_f64(),
        us_per_message: None,
        rss_mib: resident_max_mib()?,
        details: [
            ("events".to_owned(), events as f64),
            ("bytes_per_event".to_owned(), bytes as f64 / deliveries),
        ]
        .into(),
    })
}

/// What a client received.
struct Received {
    first: Instant,
    last: Instant,
    bytes: usize,
}

/// Opens a stream, and waits for its first frame.
async fn connect(target: &Target) -> anyhow::Result<TcpStream> {
    let mut socket = TcpStream::connect(target.address).await?;
    let request = format!(
        "GET /events?type={} HTTP/1.0\r\nhost: {}\r\n\r\n",
        OrderEvent::TYPE,
        target.address
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    loop {
        let count = socket.read_buf(&mut answer).await?;
        let text = String::from_utf8_lossy(&answer);
        if count == 0 {
            bail!("wrong answer: {text}");
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        if head.split(' ').nth(1) != Some("200") {
            bail!("wrong answer: {text}");
        }
        if body.matches('\n').count() == START_LINES {
            return Ok(socket);
        }
    }
}

/// Reads until this number of line ends was received.
async fn receive_all(socket: TcpStream, lines: usize) -> anyhow::Result<Received> {
    let (mut left, mut bytes, mut first) = (lines, 0, None);
    loop {
        socket.readable().await?;
        let (count, line_ends) = receive_some(&socket)?;
        if count == 0 {
            continue;
        }
        let now = Instant::now();
        let first = *first.get_or_insert(now);
        bytes += count;
        let more = "wrong answer: more events than were published";
        left = left.checked_sub(line_ends).context(more)?;
        if left == 0 {
            return Ok(Received {
                first,
                last: now,
                bytes,
            });
        }
    }
}

/// The bytes that a socket has received, and the line ends among them. No bytes if there are none
/// yet.
fn receive_some(socket: &TcpStream) -> anyhow::Result<(usize, usize)> {
    let mut buffer = [0; 16 << 10];
    match socket.try_read(&mut buffer) {
        Ok(0) => bail!("wrong answer: the gateway ended a stream"),
        Ok(count) => {
            let line_ends = buffer[..count].iter().filter(|byte| **byte == b'\n');
            Ok((count, line_ends.count()))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, 0)),
        Err(error) => Err(error.into()),
    }
}

fn encoded(data: &Data, events: usize) -> anyhow::Result<Encoded> {
    (0..events)
        .map(|number| {
            let place = (number / data.keys) as u64;
            OrderEvent::new(number % data.keys, place, data.size).encoded()
        })
        .collect()
}

/// Publishes all events, and waits for the brokers.
fn publish(spec: &Spec, encoded: Encoded) -> anyhow::Result<()> {
    let config = spec.raw(&[
        ("enable.idempotence", "true"),
        ("compression.type", "lz4"),
        ("linger.ms", "2"),
    ]);
    let producer: ThreadedProducer<DefaultProducerContext> = config.create()?;
    for (number, (value, headers)) in encoded.into_iter().enumerate() {
        let key = key(number % spec.data.keys);
        let mut record = BaseRecord::to(&spec.topic)
            .key(&key)
            .payload(&value)
            .headers(headers);
        while let Err((error, refused)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error).context("cannot publish");
            }
            std::thread::sleep(Duration::from_millis(1));
            record = refused;
        }
    }
    producer
        .flush(WITHIN)
        .context("the events were not acknowledged")
}
