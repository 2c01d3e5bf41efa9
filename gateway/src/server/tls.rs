//! TLS of the public address: certificate and key from PEM files, reloaded when they change.
//!
//! Owns the server's TLS settings. The cryptography is ring's, named explicitly: a process-wide
//! default would depend on which other crates are linked.

use crate::access::FileStamp;
use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_rustls::TlsAcceptor;

/// How often the files are checked for a change.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// The protocols that a client may choose, most wanted first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a certificate or its key cannot be used. Names the file, and never its content.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {path}: {reason}; it must be PEM")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
    /// The certificate's file has no certificate.
    #[error("{path} has no certificate")]
    NoCertificate {
        /// The file.
        path: String,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("the certificate and the key cannot be used together")]
    Unusable(#[source] rustls::Error),
}

/// The stamps of certificate and key. None for a file that is missing.
type Stamps = [Option<FileStamp>; 2];

/// The certificate of the public address. Clones share it.
#[derive(Clone)]
pub struct Tls {
    certificate: Arc<Path>,
    key: Arc<Path>,
    /// Those of the files that were read first.
    first_stamps: Stamps,
    current: Arc<watch::Sender<Arc<ServerConfig>>>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads a certificate with its chain, and its key, from PEM files. Reads files: call it at the
    /// start of the process.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        // Before the files are read: a change while they are read is not missed.
        let first_stamps = stamps(&certificate, &key);
        let config = load(&certificate, &key)?;
        Ok(Self {
            certificate: certificate.into(),
            key: key.into(),
            first_stamps,
            current: Arc::new(watch::Sender::new(config)),
        })
    }

    /// The acceptor for a new connection, with the newest certificate.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.current.borrow()))
    }

    /// Reads the files again whenever one of them changes, checked every 10 s, until the future is
    /// dropped. If they cannot be used, the old certificate stays, the reason is logged, and they
    /// are read again at the next check: one of them may not have been written yet.
    pub async fn reload_regularly(&self) {
        let mut due = tokio::time::interval(CHECK_INTERVAL);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut seen = self.first_stamps;
        loop {
            due.tick().await;
            let this = self.clone();
            let stamps = move || stamps(&this.certificate, &this.key);
            let Ok(stamps) = tokio::task::spawn_blocking(stamps).await else {
                continue;
            };
            if stamps != seen && self.reload().await {
                seen = stamps;
            }
        }
    }

    /// Returns whether the files could be used.
    async fn reload(&self) -> bool {
        let this = self.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&this.certificate, &this.key)).await;
        match loaded {
            Ok(Ok(config)) => {
                self.current.send_replace(config);
                tracing::info!(certificate = %self.certificate.display(), "certificate reloaded");
                return true;
            }
            Ok(Err(error)) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(
                    error,
                    "the new certificate cannot be used; the old one stays"
                );
            }
            Err(error) => tracing::error!(%error, "reading the new certificate panicked"),
        }
        false
    }
}

fn stamps(certificate: &Path, key: &Path) -> Stamps {
    [certificate, key].map(FileStamp::of)
}

fn load(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let unreadable = |path: &Path, reason: rustls::pki_types::pem::Error| TlsError::File {
        path: path.display().to_string(),
        reason: reason.to_string(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|reason| unreadable(certificate, reason))?;
    if chain.is_empty() {
        return Err(TlsError::NoCertificate {
            path: certificate.display().to_string(),
        });
    }
    let key = PrivateKeyDer::from_pem_file(key).map_err(|reason| unreadable(key, reason))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(TlsError::Unusable)?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel::testing::{Certificate, required};

    #[tokio::test]
    async fn a_broken_new_certificate_leaves_the_old_one() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let made = Certificate::in_directory(directory.path()).await;
        let Some(made) = required(made) else { return };
        let tls = Tls::from_files(&made.certificate, &made.key).expect("it fits its key");
        let first = Arc::clone(&tls.current.borrow());
        std::fs::write(&made.certificate, "not PEM").expect("a writable file");
        assert!(!tls.reload().await, "it is read again at the next check");
        assert!(Arc::ptr_eq(&first, &tls.current.borrow()));
        let again = Certificate::in_directory(directory.path()).await;
        again.expect("openssl worked before");
        assert!(tls.reload().await);
        assert!(!Arc::ptr_eq(&first, &tls.current.borrow()));
    }

    #[test]
    fn a_certificate_in_place_of_another_of_the_same_time_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, name).expect("written");
            let file = std::fs::File::options().write(true).open(&path);
            let file = file.expect("opened");
            file.set_modified(std::time::UNIX_EPOCH)
                .expect("the time is set");
            path
        };
        let (path, new) = (write("old.crt"), write("new.crt"));
        let before = stamps(&path, &path);
        assert_eq!(stamps(&path, &path), before);
        std::fs::rename(&new, &path).expect("the same folder");
        assert_ne!(stamps(&path, &path), before);
    }

    #[test]
    fn unusable_files_are_named() {
        let directory = tempfile::tempdir().expect("a temporary folder");
        let path = directory.path().join("server.crt");
        let error = || {
            let loaded = Tls::from_files(&path, &path);
            loaded.expect_err("it has no certificate").to_string()
        };
        assert!(error().contains("server.crt"), "{}", error());
        std::fs::write(&path, "not PEM").expect("a writable file");
        assert!(error().contains("has no certificate"), "{}", error());
    }
}
