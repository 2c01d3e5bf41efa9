//! Accepts connections and carries their requests to the router.
//!
//! Owns the accept loop, a task per connection, and the settings of HTTP. HTTP/2 resets: hyper
//! closes a connection with more than 1,024 streams that were reset because of errors of the
//! client, and h2 one with more than 20 streams that the client reset before they were accepted
//! (CVE-2023-44487). Both keep their defaults here.

use super::counted_body::{CountedBody, RequestGuard};
use super::limits::ConnectionLimits;
use super::open::{Admitted, OpenConnections};
use super::request_body::RequestBody;
use super::socket::Socket;
use crate::server::tls::Tls;
use axum::Router;
use axum::body::HttpBody;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

/// The most bytes of a request's head. A larger one is answered with 431.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
/// The most streams of one HTTP/2 connection at the same time.
const H2_STREAMS_MAX: u32 = 256;
/// How often an HTTP/2 connection is pinged, and how long the answer may take.
const H2_PING_INTERVAL: Duration = Duration::from_secs(20);
const H2_PING_WITHIN: Duration = Duration::from_secs(20);
/// The most bytes of an answer that one HTTP/2 stream takes over before they are written, up to one
/// part of [`CountedBody`] more.
const H2_SEND_BYTES_MAX: usize = 64 << 10;
/// The most bytes of bodies that wait for their handlers: of one stream, and of a connection.
const H2_STREAM_WINDOW: u32 = 128 << 10;
const H2_CONNECTION_WINDOW: u32 = 256 << 10;
/// How long a closed connection may take to take leave of its client. One that was closed as idle
/// takes longer if a request came at that moment.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);

/// The metric of connections that were closed at once, as there was no room.
const REFUSED_TOTAL: &str = "gateway_connections_refused_total";

/// Binds the public address. An error states the remedy.
///
/// # Errors
/// If the address is in use, not of this machine, or needs a privilege.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                "; another process listens there: choose another port, or 0 for a free one"
            }
            io::ErrorKind::AddrNotAvailable => "; this machine does not have that address",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            _ => "",
        };
        let message = format!("cannot listen on {address}: {error}{advice}");
        io::Error::new(error.kind(), message)
    })
}

/// The server of the public address. Clones share the connections.
#[derive(Debug, Clone)]
pub struct Server {
    open: Arc<OpenConnections>,
    /// Cancelled to accept no more connections, and no more requests on the open ones.
    stop: CancellationToken,
}

impl Server {
    /// A server with these bounds, which serves nothing yet. Warns, and lowers
    /// [`connections_max`](ConnectionLimits::connections_max), if the process may not open as many
    /// files.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            open: OpenConnections::new(limits.within_open_files()),
            stop: CancellationToken::new(),
        }
    }

    /// Serves `router` until [`Server::stop_accepting`]. Open connections last longer: see
    /// [`Server::all_closed`]. After a failed accept it waits a second.
    pub async fn serve(&self, mut listener: TcpListener, tls: Option<Tls>, router: Router) {
        let builder = Arc::new(builder());
        let mut sweep = pin!(self.open.sweep_regularly());
        loop {
            let (stream, peer) = tokio::select! {
                accepted = Listener::accept(&mut listener) => accepted,
                () = self.stop.cancelled() => break,
                () = &mut sweep => break,
            };
            let Some(admitted) = self.open.admit(peer.ip(), Instant::now()) else {
                metrics::counter!(REFUSED_TOTAL).increment(1);
                continue;
            };
            let connection = Connection {
                builder: Arc::clone(&builder),
                router: router.clone(),
                stop: self.stop.clone(),
                handshake_within: self.open.limits().handshake_within,
            };
            tokio::spawn(connection.accept(stream, tls.clone(), admitted));
        }
        drop(listener);
        // Idle connections must still end while the last requests are answered.
        tokio::select! {
            () = &mut sweep => {}
            () = self.open.all_closed() => {}
        }
    }

    /// Closes the listener, and every connection after the request that it carries. HTTP/2 clients
    /// are told so.
    pub fn stop_accepting(&self) {
        self.stop.cancel();
    }

    /// Waits until every connection is closed. Cancel-safe.
    pub async fn all_closed(&self) {
        self.open.all_closed().await;
    }

    /// Closes all connections, whatever they do. Returns the number of requests that are cut.
    pub fn close_all(&self) -> usize {
        let requests = self.open.requests();
        self.open.close_all();
        requests
    }

    /// The number of open connections.
    pub fn connections(&self) -> usize {
        self.open.count()
    }
}

/// HTTP/1.1 and HTTP/2 as this server speaks them. The head of an HTTP/1.1 request has a limit of
/// its own in [`OpenConnections`], as hyper's would end idle connections, too.
fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(None::<Duration>)
        .max_buf_size(HEAD_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(H2_STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_send_buf_size(H2_SEND_BYTES_MAX)
        .initial_stream_window_size(H2_STREAM_WINDOW)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .keep_alive_interval(H2_PING_INTERVAL)
        .keep_alive_timeout(H2_PING_WITHIN);
    builder
}

/// What a connection's task needs.
struct Connection {
    builder: Arc<auto::Builder<TokioExecutor>>,
    router: Router,
    stop: CancellationToken,
    handshake_within: Duration,
}

impl Connection {
    /// Serves a connection until it is closed by either side.
    async fn accept(self, stream: TcpStream, tls: Option<Tls>, admitted: Admitted) {
        // Answers are written whole; waiting for more bytes only delays them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let Some(tls) = tls else {
            return Box::pin(self.carry(stream, admitted)).await;
        };
        let close = admitted.close.clone();
        let handshake = timeout(self.handshake_within, tls.acceptor().accept(stream));
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = close.cancelled() => return,
            () = self.stop.cancelled() => return,
        };
        match accepted {
            Ok(Ok(stream)) => Box::pin(self.carry(stream, admitted)).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn carry<T>(self, stream: T, admitted: Admitted)
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (activity, close) = (Arc::clone(&admitted.activity), admitted.close.clone());
        let (router, counted) = (self.router, Arc::clone(&activity));
        let service = service_fn(move |request: Request<Incoming>| {
            let body_len = request.body().size_hint().exact();
            let guard = RequestGuard::start(Arc::clone(&counted), body_len);
            let (router, version) = (router.clone(), request.version());
            let request = request.map(|body| RequestBody::wrap(body, &counted));
            async move {
                let response = router.oneshot(request).await?;
                let response = response.map(|body| CountedBody::new(body, guard, version));
                Ok::<Response<CountedBody>, Infallible>(response)
            }
        });
        let io = TokioIo::new(Socket::new(stream, admitted));
        let mut connection = pin!(self.builder.serve_connection_with_upgrades(io, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stop.cancelled() => None,
            () = close.cancelled() => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                let limit = async {
                    close.cancelled().await;
                    // One that made room for another holds no socket for longer.
                    if !activity.is_cut() || activity.requests() > 0 {
                        tokio::time::sleep(LEAVE_WITHIN).await;
                    }
                    while activity.requests() > 0 && !activity.is_cut() {
                        tokio::time::sleep(LEAVE_WITHIN).await;
                    }
                };
                tokio::select! {
                    // First the connection, which says goodbye before the limit is reached.
                    biased;
                    ended = connection.as_mut() => ended,
                    () = limit => return,
                }
            }
        };
        match ended {
            // If the socket is still open, a WebSocket has it now.
            Ok(()) => activity.upgraded(),
            Err(error) => tracing::debug!(%error, "a connection failed"),
        }
    }
}
