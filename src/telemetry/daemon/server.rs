//! The connections of the admin server, with limits on their number and time.
//!
//! Owns the limits. A connection carries one request, so none is idle between two. When all places
//! are used, a new connection replaces the oldest one: a probe is answered whatever other clients
//! do.
//!
//! Why not axum's own server: it bounds neither the connections nor the time of a request's head,
//! so that clients that send nothing would occupy memory and file descriptors of the service.

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// The most open connections.
const CONNECTIONS_MAX: usize = 64;
/// How long a client may take to send its request's head.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// How long a connection may last, with its answer.
const CONNECTION_WITHIN: Duration = Duration::from_secs(30);
/// The most bytes of a request's head. A larger one is answered with 431.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Binds an address. An error states the remedy.
pub(super) async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another process listens there: choose another port, or 0 for a free one"
            }
            io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            _ => "",
        };
        let message = format!("cannot serve the admin address {address}: {error}{advice}");
        io::Error::new(error.kind(), message)
    })
}

/// Serves until the runtime ends. After a failed accept it waits, as axum does.
pub(super) async fn serve(mut listener: TcpListener, router: Router) {
    let mut open = Open::default();
    loop {
        let (stream, _) = Listener::accept(&mut listener).await;
        let connection = tokio::spawn(carry(stream, router.clone()));
        open.admit(connection.abort_handle());
    }
}

/// Serves one request. Its body is not read.
async fn carry(stream: TcpStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match tokio::time::timeout(CONNECTION_WITHIN, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a connection of the admin server failed"),
        Err(_) => tracing::debug!("a connection of the admin server took too long"),
    }
}

/// The open connections, oldest first.
#[derive(Default)]
struct Open(VecDeque<AbortHandle>);

impl Open {
    /// Adds a connection, and closes the oldest if there are too many.
    fn admit(&mut self, connection: AbortHandle) {
        if self.0.len() >= CONNECTIONS_MAX {
            self.0.retain(|connection| !connection.is_finished());
        }
        if self.0.len() >= CONNECTIONS_MAX
            && let Some(oldest) = self.0.pop_front()
        {
            oldest.abort();
        }
        self.0.push_back(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    async fn served() -> SocketAddr {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/livez", get(async || StatusCode::OK));
        tokio::spawn(serve(listener, router));
        address
    }

    /// The response to a client that sends this request and waits.
    async fn heard(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        // The server may close the connection before it has read all of it.
        let _ = stream.write_all(request).await;
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard).await;
        String::from_utf8_lossy(&heard).into_owned()
    }

    async fn probed(address: SocketAddr) -> String {
        heard(address, b"GET /livez HTTP/1.1\r\nHost: here\r\n\r\n").await
    }

    #[tokio::test]
    async fn a_client_with_an_unfinished_head_is_cut_off() {
        let address = served().await;
        let began = Instant::now();
        let heard = heard(address, b"GET /livez HTTP/1.1\r\nHost: he").await;
        assert!(!heard.contains("200"), "{heard}");
        let took = began.elapsed();
        assert!(took < HEAD_WITHIN + Duration::from_secs(5), "{took:?}");
    }

    #[tokio::test]
    async fn a_probe_is_answered_beside_two_thousand_connections() {
        let address = served().await;
        let mut held = Vec::new();
        for _ in 0..2_000 {
            held.push(TcpStream::connect(address).await.expect("a connection"));
        }
        let began = Instant::now();
        let heard = probed(address).await;
        assert!(heard.starts_with("HTTP/1.1 200"), "{heard}");
        let took = began.elapsed();
        assert!(took < HEAD_WITHIN / 2, "{took:?}");
        let mut closed = 0;
        for stream in &held {
            let mut byte = [0];
            closed += usize::from(matches!(stream.try_read(&mut byte), Ok(0) | Err(_)));
        }
        drop(held);
        assert!(closed >= 2_000 - CONNECTIONS_MAX, "{closed}");
    }

    #[tokio::test]
    async fn huge_heads_are_refused_and_bodies_are_not_read() {
        let address = served().await;
        let huge = format!(
            "GET /livez HTTP/1.1\r\nHost: here\r\nX: {}\r\n\r\n",
            "x".repeat(2 * HEAD_BYTES_MAX)
        );
        let refused = heard(address, huge.as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
        let many = "X: y\r\n".repeat(1_000);
        let many = format!("GET /livez HTTP/1.1\r\n{many}\r\n");
        let refused = heard(address, many.as_bytes()).await;
        assert!(refused.starts_with("HTTP/1.1 431"), "{refused}");
        let endless =
            b"GET /livez HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000000\r\n\r\nbody";
        let began = Instant::now();
        let answered = heard(address, endless).await;
        assert!(answered.starts_with("HTTP/1.1 200"), "{answered}");
        assert!(began.elapsed() < HEAD_WITHIN, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_connection_carries_one_request() {
        let address = served().await;
        let heard = probed(address).await.to_lowercase();
        assert!(heard.contains("connection: close"), "{heard}");
    }
}
