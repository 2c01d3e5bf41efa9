//! A client of the tests. It writes HTTP/1.0, so that the body is not chunked, and reads the bytes
//! as they come.

use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest wait for anything that the tests expect.
pub(super) const WITHIN: Duration = Duration::from_secs(60);
pub(super) const TYPE: &str = "test.counted.v1";
pub(super) const OTHER_TYPE: &str = "test.other.v1";

/// A server-sent event.
#[derive(Debug, Default)]
pub(super) struct SseEvent {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) data: String,
}

impl SseEvent {
    fn json(&self) -> Value {
        serde_json::from_str(&self.data).expect("the data is JSON")
    }

    /// Key and number of an event of the tests. None for another frame.
    pub(super) fn counted(&self) -> Option<(String, usize)> {
        if ![TYPE, OTHER_TYPE].contains(&self.name.as_str()) {
            return None;
        }
        let event = self.json();
        let number = event["data"]["number"].as_u64().expect("a number");
        let key = event["data"]["key"].as_str().expect("a key");
        Some((
            key.to_owned(),
            usize::try_from(number).expect("a small number"),
        ))
    }
}

/// A connection, and what came of its answer.
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) status: u16,
    /// In lower case.
    pub(super) head: String,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn get(address: SocketAddr, target: &str, headers: &[(&str, &str)]) -> Self {
        let socket = TcpStream::connect(address)
            .await
            .expect("the gateway listens");
        Self::get_on(socket, target, "HTTP/1.0", headers).await
    }

    pub(super) async fn get_on(
        mut socket: TcpStream,
        target: &str,
        version: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        let mut request = format!("GET {target} {version}\r\n");
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        socket
            .write_all(request.as_bytes())
            .await
            .expect("the gateway reads");
        let mut connection = Self {
            socket,
            status: 0,
            head: String::new(),
            buffer: Vec::new(),
        };
        let head = connection.take_until(b"\r\n\r\n").await.expect("an answer");
        connection.head = String::from_utf8(head)
            .expect("the head is text")
            .to_lowercase();
        let status = connection
            .head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        connection.status = status.expect("a status line");
        connection
    }

    /// Reads some bytes. False at the end.
    async fn fill(&mut self) -> bool {
        let read = timeout(WITHIN, self.socket.read_buf(&mut self.buffer)).await;
        read.expect("bytes or the end in time")
            .is_ok_and(|count| count > 0)
    }

    /// The bytes before the next mark, which is removed. None at the end.
    async fn take_until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let at = self
                .buffer
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(at) = at {
                let rest = self.buffer.split_off(at + mark.len());
                let mut taken = std::mem::replace(&mut self.buffer, rest);
                taken.truncate(at);
                return Some(taken);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    async fn take_exact(&mut self, count: usize) -> Vec<u8> {
        while self.buffer.len() < count {
            assert!(self.fill().await, "the connection ended");
        }
        let rest = self.buffer.split_off(count);
        std::mem::replace(&mut self.buffer, rest)
    }

    /// The next server-sent event with an id. None at the end.
    pub(super) async fn next(&mut self) -> Option<SseEvent> {
        loop {
            let block = self.take_until(b"\n\n").await?;
            let block = String::from_utf8(block).expect("UTF-8");
            let mut event = SseEvent::default();
            for line in block.lines() {
                let (field, value) = line.split_once(": ").expect("a field");
                match field {
                    "id" => event.id = value.to_owned(),
                    "event" => event.name = value.to_owned(),
                    "data" => event.data = value.to_owned(),
                    _ => {}
                }
            }
            if !event.id.is_empty() {
                return Some(event);
            }
        }
    }

    /// The numbers of the next events by key, up to this count of events.
    pub(super) async fn numbers(&mut self, count: usize) -> BTreeMap<String, Vec<usize>> {
        let mut numbers: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let mut left = count;
        while left > 0 {
            let event = self.next().await.expect("the stream is open");
            if let Some((key, number)) = event.counted() {
                numbers.entry(key).or_default().push(number);
                left -= 1;
            }
        }
        numbers
    }

    /// The rest of the body.
    pub(super) async fn rest(mut self) -> String {
        while self.fill().await {}
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

/// A WebSocket message of the server: its opcode and payload.
pub(super) async fn websocket_message(client: &mut Connection) -> (u8, Vec<u8>) {
    let head = client.take_exact(2).await;
    let length = match head[1] {
        126 => {
            let length = client.take_exact(2).await;
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        }
        127 => panic!("no message of the tests is that long"),
        length => usize::from(length),
    };
    (head[0] & 0x0f, client.take_exact(length).await)
}
