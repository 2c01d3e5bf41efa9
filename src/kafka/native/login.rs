//! Provides clients with OAUTHBEARER tokens: the first at their creation, the next ones in time.
//!
//! librdkafka requests tokens by events, which it returns only to callers that poll the client. The
//! bindings never poll an admin client, other clients are polled only while they wait for an
//! answer, and the bindings pass no extensions on. So one thread of the process provides the tokens
//! of every client, whatever the client does.
//!
//! The source is called without the table's lock, as it may block: the drop of a client must not
//! wait for it. The client may thus be gone when its token arrives, so the entry is looked up
//! again. A failure while the last token is still valid is only logged. After its end the client
//! receives the failure, and reports it as the cause of its failed connections.

use crate::kafka::token::{Token, TokenOrigin};
use rdkafka::client::Client;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaResult;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, ClientContext, bindings as sys};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The interval at which clients are checked.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

static CLIENTS: Mutex<Option<Clients>> = Mutex::new(None);

#[derive(Default)]
struct Clients {
    served: HashMap<u64, Entry>,
    last_id: u64,
    has_thread: bool,
}

/// A client's handle is valid for as long as its entry is in the table, and used only under the
/// table's lock.
struct Entry {
    client: NonNull<sys::rd_kafka_t>,
    origin: TokenOrigin,
    due: Instant,
    /// The expiry of its last token. None before it has one.
    expires_at: Option<SystemTime>,
    /// The current fault, as it was logged.
    trouble: Option<String>,
}

// SAFETY: librdkafka's handles are internally locked. The calls made here may come from any thread.
unsafe impl Send for Entry {}

/// A client has tokens until this is dropped. Drop it before the client.
#[must_use = "the client gets tokens only until this is dropped"]
pub(crate) struct Login {
    id: Option<u64>,
}

/// Creates a consumer client with these properties, and its login, which must be dropped before the
/// client: `let (client, _login) = …` does so, as the last declared is dropped first.
pub(crate) fn logged_in<C: ConsumerContext>(
    config: &ClientConfig,
    context: C,
) -> KafkaResult<(BaseConsumer<C>, Login)> {
    let client: BaseConsumer<C> = config.create_with_context(context)?;
    let login = Login::new(client.client(), config);
    Ok((client, login))
}

impl Login {
    /// Provides a client that was created with these properties with its first token. Does nothing
    /// for a client with another login. Calls the source, which may block. Without a token the
    /// client reports an error of its connections.
    pub(crate) fn new<C: ClientContext>(client: &Client<C>, config: &ClientConfig) -> Self {
        let Some(origin) = TokenOrigin::of(config) else {
            return Self { id: None };
        };
        let token = origin.token();
        let mut entry = Entry {
            // SAFETY: a client's handle is never null.
            client: unsafe { NonNull::new_unchecked(client.native_ptr()) },
            origin,
            due: Instant::now(),
            expires_at: None,
            trouble: None,
        };
        let failed = entry
            .deliver_token(token.map_err(|error| error.to_string()))
            .err();
        // The client reports this fault itself.
        entry.trouble = failed;
        let mut clients = lock();
        let clients = clients.get_or_insert_default();
        clients.last_id += 1;
        let id = clients.last_id;
        clients.served.insert(id, entry);
        if !clients.has_thread {
            let spawned = std::thread::Builder::new()
                .name("evenkeel-logins".to_owned())
                .spawn(|| while check_all_clients() {});
            match spawned {
                Ok(_) => clients.has_thread = true,
                Err(error) => tracing::warn!(%error, "cannot start the thread that renews tokens"),
            }
        }
        Self { id: Some(id) }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let (Some(id), Some(clients)) = (self.id, &mut *lock()) else {
            return;
        };
        clients.served.remove(&id);
    }
}

/// Waits, then provides new tokens to the clients that need one. Returns false if no client is
/// left, and the thread ends.
fn check_all_clients() -> bool {
    std::thread::sleep(CHECK_INTERVAL);
    let due: Vec<(u64, TokenOrigin)> = {
        let mut clients = lock();
        let Some(clients) = clients.as_mut() else {
            return false;
        };
        if clients.served.is_empty() {
            clients.has_thread = false;
            return false;
        }
        let now = Instant::now();
        let due = clients.served.iter().filter(|(_, entry)| entry.due <= now);
        due.map(|(id, entry)| (*id, entry.origin.clone())).collect()
    };
    for (id, origin) in due {
        // Without the lock: the drop of a client must not wait for a source.
        let token = origin.token().map_err(|error| error.to_string());
        let mut clients = lock();
        let served = clients.as_mut().map(|clients| &mut clients.served);
        if let Some(entry) = served.and_then(|served| served.get_mut(&id)) {
            let failed = entry.deliver_token(token).err();
            entry.log_change(failed);
        }
    }
    true
}

impl Entry {
    /// Passes a token, or the reason for its absence, to the client.
    fn deliver_token(&mut self, token: Result<Token, String>) -> Result<(), String> {
        let given = token.and_then(|token| self.set(&token).map(|()| token.expires_at));
        match given {
            Ok(expires_at) => {
                let lasts = expires_at.duration_since(SystemTime::now());
                self.due = Instant::now() + self.origin.refresh_after(lasts.unwrap_or_default());
                self.expires_at = Some(expires_at);
                Ok(())
            }
            Err(error) => {
                self.due = Instant::now() + self.origin.retry_after();
                // While its token is valid, the client needs no error.
                if self.expires_at.is_none_or(|end| end <= SystemTime::now()) {
                    self.fail(&error);
                }
                Err(error)
            }
        }
    }

    /// Logs changes: that tokens fail, with the reason, and that they are available again.
    fn log_change(&mut self, failed: Option<String>) {
        match &failed {
            Some(error) if self.trouble.as_ref() != Some(error) => {
                let ends = self
                    .expires_at
                    .and_then(|end| jiff::Timestamp::try_from(end).ok());
                let ends = ends.map(|end| format!("{end:.0}"));
                tracing::warn!(
                    client = self.name(),
                    error,
                    last_token_ends = ends,
                    "cannot get a new token; retrying"
                );
            }
            None if self.trouble.is_some() => {
                tracing::info!(client = self.name(), "the client has a token again");
            }
            _ => {}
        }
        self.trouble = failed;
    }

    fn name(&self) -> String {
        // SAFETY: the client is alive. The name lives as long as the client, and is copied.
        let name = unsafe { CStr::from_ptr(sys::rd_kafka_name(self.client.as_ptr())) };
        name.to_string_lossy().into_owned()
    }

    /// Passes a valid token to the client. The error is librdkafka's reason.
    fn set(&self, token: &Token) -> Result<(), String> {
        let text =
            |text: &str| CString::new(text).map_err(|_| "a token contains a null byte".to_owned());
        let (value, principal) = (text(&token.value)?, text(&token.principal)?);
        let mut extensions = Vec::with_capacity(2 * token.extensions.len());
        for (name, value) in &token.extensions {
            extensions.extend([text(name)?, text(value)?]);
        }
        let mut pointers: Vec<*const c_char> =
            extensions.iter().map(|text| text.as_ptr()).collect();
        let since = token.expires_at.duration_since(SystemTime::UNIX_EPOCH);
        // In microseconds it must fit into 64 bits too.
        let end_ms = since.map_or(0, |since| since.as_millis().min(i64::MAX as u128 / 1000)) as i64;
        let mut reason = [0_u8; 512];
        // SAFETY: the client is alive. All strings outlive the call, which copies them. `reason`
        // has the passed length and receives a C string.
        let code = unsafe {
            sys::rd_kafka_oauthbearer_set_token(
                self.client.as_ptr(),
                value.as_ptr(),
                end_ms,
                principal.as_ptr(),
                pointers.as_mut_ptr(),
                pointers.len(),
                reason.as_mut_ptr().cast(),
                reason.len(),
            )
        };
        if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        let reason = CStr::from_bytes_until_nul(&reason).unwrap_or_default();
        Err(reason.to_string_lossy().into_owned())
    }

    /// Tells the client that it gets no token. It retries its connections until it has one.
    fn fail(&self, error: &str) {
        let Ok(error) = CString::new(error.replace('\0', " ")) else {
            return;
        };
        // SAFETY: the client is alive. The string is copied.
        unsafe {
            sys::rd_kafka_oauthbearer_set_token_failure(self.client.as_ptr(), error.as_ptr())
        };
    }
}

/// The table is consistent after each statement, so a panic elsewhere does not matter.
fn lock() -> MutexGuard<'static, Option<Clients>> {
    CLIENTS.lock().unwrap_or_else(PoisonError::into_inner)
}
