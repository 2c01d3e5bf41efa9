//! Which daemons report that they are ready.

use std::collections::BTreeSet;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// A daemon that does not answer within this time is not ready. A frozen one accepts connections
/// and never answers.
const WITHIN: Duration = Duration::from_millis(500);

/// Whether the daemon with this admin port reports that it is ready.
pub(crate) async fn is_ready(port: u16) -> bool {
    let exchange = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await?;
        std::io::Result::Ok(&status == b"HTTP/1.1 200")
    };
    let answer = tokio::time::timeout(WITHIN, exchange).await;
    matches!(answer, Ok(Ok(true)))
}

/// Those of the admin ports whose daemons are ready. All are probed at the same time.
pub(crate) async fn ready_of(ports: &[u16]) -> BTreeSet<u16> {
    let mut probes = JoinSet::new();
    for port in ports.iter().copied() {
        probes.spawn(async move { is_ready(port).await.then_some(port) });
    }
    probes.join_all().await.into_iter().flatten().collect()
}
