//! A connection of a client that posts orders: HTTP/1.1 over a socket, so that clients cost little.

use super::servers::Target;
use anyhow::{Context, bail};
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The end of the head of an answer.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A connection with keep-alive. It sends one request at a time.
pub(super) struct Connection {
    address: SocketAddr,
    socket: TcpStream,
    /// Whether the server closes it after the last answer.
    is_closing: bool,
    /// The head of a request up to the number in its id.
    head: String,
    orders: Arc<[Vec<u8>]>,
    sent: Vec<u8>,
    received: Vec<u8>,
}

/// What the client needs of an answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    body_bytes: usize,
    is_last: bool,
}

impl Connection {
    /// Connects. Order number n is the n-th of `orders`, which repeat.
    pub(super) async fn open(target: &Target, orders: Arc<[Vec<u8>]>) -> anyhow::Result<Self> {
        let Target { address, path } = target;
        // The ids of two loads of one server differ, too.
        let process = std::process::id();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             ce-id: {process}-"
        );
        Ok(Self {
            address: *address,
            socket: connect(*address).await?,
            is_closing: false,
            head,
            orders,
            sent: Vec::new(),
            received: Vec::with_capacity(4 << 10),
        })
    }

    /// Posts the order with this number, and reads the answer.
    pub(super) async fn post(&mut self, number: u64) -> anyhow::Result<Answer> {
        if self.is_closing {
            self.socket = connect(self.address).await?;
        }
        let order = &self.orders[(number % self.orders.len() as u64) as usize];
        let (head, length) = (&self.head, order.len());
        self.sent.clear();
        let sent = &mut self.sent;
        write!(sent, "{head}{number}\r\ncontent-length: {length}\r\n\r\n")?;
        self.sent.extend_from_slice(order);
        self.socket.write_all(&self.sent).await?;
        self.received.clear();
        let body_at = loop {
            self.receive().await?;
            let mut windows = self.received.windows(HEAD_END.len());
            if let Some(at) = windows.position(|window| window == HEAD_END) {
                break at + HEAD_END.len();
            }
        };
        let answer = Answer::read(&self.received[..body_at]);
        let answer = answer.context("an answer has a status and a length")?;
        while self.received.len() < body_at + answer.body_bytes {
            self.receive().await?;
        }
        self.is_closing = answer.is_last;
        Ok(answer)
    }

    async fn receive(&mut self) -> anyhow::Result<()> {
        match self.socket.read_buf(&mut self.received).await? {
            0 => bail!("wrong answer: the server closed a connection"),
            _ => Ok(()),
        }
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

impl Answer {
    fn read(head: &[u8]) -> Option<Self> {
        let head = std::str::from_utf8(head).ok()?;
        let header = |name: &str| {
            head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            })
        };
        let retry_after = header("retry-after").and_then(|value| value.parse().ok());
        Some(Self {
            status: head.split(' ').nth(1)?.parse().ok()?,
            retry_after: retry_after.map(Duration::from_secs),
            body_bytes: header("content-length")?.parse().ok()?,
            is_last: header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Answer;

    #[test]
    fn an_answer_needs_a_status_and_a_length() {
        let read = |head: &[u8]| Some(Answer::read(head)?.retry_after?.as_secs());
        let refused = b"HTTP/1.1 503 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(refused), Some(7));
        assert!(Answer::read(b"HTTP/1.1 202 x\r\n\r\n").is_none());
        assert!(Answer::read(b"HTTP/1.1\r\ncontent-length: 0\r\n\r\n").is_none());
    }

    #[test]
    fn a_closing_answer_is_the_last_one() {
        for (head, expected) in [
            (&b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n"[..], false),
            (
                b"HTTP/1.1 503 x\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
                true,
            ),
        ] {
            let answer = Answer::read(head).expect("an answer");
            assert_eq!(answer.is_last, expected);
        }
    }
}
