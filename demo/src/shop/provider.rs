//! The payment provider: a separate process that payments queries, and that misbehaves under chaos.

use crate::chaos::Conduct;
use crate::supervisor::{Guard, Process, Program, tail};
use anyhow::{Context, bail, ensure};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Delay of a slow provider: far below the timeout of payments.
const LATENCY_MS: u64 = 300;
/// Time limit of its start, and of an answer.
const START_MAX: Duration = Duration::from_secs(30);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// The running provider.
pub(crate) struct Provider {
    process: Process,
    log: std::path::PathBuf,
    admin_port: u16,
}

impl Provider {
    /// Starts the provider, and waits until it listens.
    pub(crate) async fn start(
        program: &Program,
        admin_port: u16,
        guard: &mut Guard,
    ) -> anyhow::Result<Self> {
        let mut provider = Self {
            process: Process::start(program, guard)?,
            log: program.log.clone(),
            admin_port,
        };
        let started = Instant::now();
        while provider.put_conduct(Conduct::Normal).await.is_err() {
            provider.must_live(guard)?;
            if started.elapsed() > START_MAX {
                bail!("{} does not answer", program.name);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(provider)
    }

    /// Fails if the provider has ended: payments would wait for it forever.
    pub(crate) fn must_live(&mut self, guard: &mut Guard) -> anyhow::Result<()> {
        if let Some(status) = self.process.ended(guard)? {
            let log = tail(&self.log, 5);
            bail!("the payment provider ended with {status}; its log ends:\n{log}");
        }
        Ok(())
    }

    /// Sets its behaviour. Returns a message that describes the behaviour.
    pub(crate) async fn set_conduct(&self, conduct: Conduct) -> anyhow::Result<String> {
        self.put_conduct(conduct)
            .await
            .context("the payment provider does not listen")?;
        let line = match conduct {
            Conduct::Normal => "behaves again".to_owned(),
            Conduct::Slow => format!("answers {LATENCY_MS} ms late"),
            Conduct::Declining => "declines every payment".to_owned(),
            Conduct::FailingFor(customer) => {
                format!("fails for {} with HTTP status 500", name_of(customer))
            }
            Conduct::RejectingOf(customer) => {
                format!("rejects {} with HTTP status 422", name_of(customer))
            }
            Conduct::Hanging => "accepts and never answers".to_owned(),
            Conduct::Down => "answers with HTTP status 503".to_owned(),
            Conduct::Unreachable => "refuses connections".to_owned(),
        };
        Ok(format!("the payment provider {line}"))
    }

    async fn put_conduct(&self, conduct: Conduct) -> anyhow::Result<()> {
        let body = body(conduct);
        let request = format!(
            "PUT /behaviour HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let exchange = async {
            let mut stream = TcpStream::connect(("127.0.0.1", self.admin_port)).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut status = [0; 12];
            stream.read_exact(&mut status).await?;
            std::io::Result::Ok(status)
        };
        let status = tokio::time::timeout(ANSWER_MAX, exchange).await??;
        ensure!(
            &status == b"HTTP/1.1 200",
            "it answers {}",
            String::from_utf8_lossy(&status)
        );
        Ok(())
    }
}

/// The id of the simulated customer of that number.
fn name_of(customer: u32) -> String {
    format!("customer-{customer:04}")
}

fn body(conduct: Conduct) -> String {
    let failing = |customer, status: u16| {
        let customer = name_of(customer);
        format!(r#"{{"behaviour":"failing","customer_id":"{customer}","status":{status}}}"#)
    };
    match conduct {
        Conduct::Normal => r#"{"behaviour":"normal"}"#.to_owned(),
        Conduct::Slow => format!(r#"{{"behaviour":"slow","latency_ms":{LATENCY_MS}}}"#),
        Conduct::Declining => r#"{"behaviour":"declining"}"#.to_owned(),
        Conduct::FailingFor(customer) => failing(customer, 500),
        Conduct::RejectingOf(customer) => failing(customer, 422),
        Conduct::Hanging => r#"{"behaviour":"hanging"}"#.to_owned(),
        Conduct::Down => r#"{"behaviour":"down"}"#.to_owned(),
        Conduct::Unreachable => r#"{"behaviour":"unreachable"}"#.to_owned(),
    }
}
