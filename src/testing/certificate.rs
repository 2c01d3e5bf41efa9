//! A self-signed certificate, made by `openssl`.

use super::StartError;
use super::process::subprocess;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A self-signed certificate for 127.0.0.1 and localhost, with its key, valid for two days. A
/// client that trusts this certificate trusts the server.
///
/// ```no_run
/// use evenkeel::testing::Certificate;
///
/// # async fn example(directory: &std::path::Path) -> Result<(), evenkeel::testing::StartError> {
/// let server = Certificate::in_directory(directory).await?;
/// println!("trust {}", server.certificate.display());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Certificate {
    /// The certificate file, PEM.
    pub certificate: PathBuf,
    /// The key file, PEM. Only its owner can read it.
    pub key: PathBuf,
}

impl Certificate {
    /// Creates a certificate and its key in `directory`, as `server.crt` and `server.key`. Replaces
    /// earlier ones. The files remain.
    ///
    /// # Errors
    /// If `openssl` is missing or fails.
    pub async fn in_directory(directory: &Path) -> Result<Self, StartError> {
        let this = Self {
            certificate: directory.join("server.crt"),
            key: directory.join("server.key"),
        };
        let arguments = [
            "req".as_ref(),
            "-x509".as_ref(),
            "-newkey".as_ref(),
            "rsa:2048".as_ref(),
            "-nodes".as_ref(),
            "-days".as_ref(),
            "2".as_ref(),
            "-subj".as_ref(),
            "/CN=localhost".as_ref(),
            "-addext".as_ref(),
            "subjectAltName=DNS:localhost,IP:127.0.0.1".as_ref(),
            "-out".as_ref(),
            this.certificate.as_os_str(),
            "-keyout".as_ref(),
            this.key.as_os_str(),
        ];
        let made = subprocess::output("openssl", arguments, LIMIT).await;
        made.map_err(|reason| StartError::server("openssl", reason))?;
        Ok(this)
    }

    /// Makes this user the owner of both files. `None` changes nothing.
    pub(super) fn set_owner(&self, user: Option<u32>) -> std::io::Result<()> {
        for path in [&self.certificate, &self.key] {
            std::os::unix::fs::chown(path, user, None)?;
        }
        Ok(())
    }
}
