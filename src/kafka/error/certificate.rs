//! Finds the fault of a broker's certificate.
//!
//! librdkafka reports only "could not be verified" for every certificate that it rejects. So the
//! certificate is fetched once more and examined. Nothing is sent over that connection.
//!
//! The handshake accepts any certificate, which is safe only because of that. The result is advice
//! in an error text. No decision depends on it.

use openssl::ssl::{Ssl, SslContext, SslMethod, SslVerifyMode};
use openssl::x509::{X509, X509Ref};
use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long the connection, and each answer after that, may take.
const LIMIT: Duration = Duration::from_secs(2);

/// OpenSSL's numbers of faults (`X509_V_ERR_*`).
const NOT_YET_VALID: i32 = 9;
const EXPIRED: i32 = 10;
const HOSTNAME_MISMATCH: i32 = 62;
const IP_ADDRESS_MISMATCH: i32 = 64;

/// The examined parts of a certificate.
#[derive(Default)]
struct CertificateDetails {
    errors: BTreeSet<i32>,
    certificate: Option<X509>,
}

/// The fault in the certificate of the broker that `cause` names as `ssl://HOST:PORT/…`. Blocks for
/// a few seconds at most.
pub(in crate::kafka) fn fault(cause: &str) -> Option<String> {
    let address = address(cause)?;
    let (host, _) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let seen = fetch_certificate(address, host)?;
    let certificate = seen.certificate?;
    let what = format!("the certificate of {address}");
    let has = |error| seen.errors.contains(&error);
    Some(if has(EXPIRED) {
        format!("{what} has expired on {}", certificate.not_after())
    } else if has(NOT_YET_VALID) {
        format!("{what} is not valid before {}", certificate.not_before())
    } else if has(HOSTNAME_MISMATCH) || has(IP_ADDRESS_MISMATCH) {
        format!("{what} is for other names: {}", names(&certificate))
    } else {
        format!(
            "{what} is not trusted; it was issued by {}",
            issuer(&certificate)
        )
    })
}

/// `HOST:PORT` of `ssl://HOST:PORT/bootstrap: …`.
fn address(cause: &str) -> Option<&str> {
    let (_, rest) = cause.split_once("ssl://")?;
    let end = rest.find('/').or_else(|| rest.find(": "))?;
    Some(&rest[..end])
}

/// Performs a handshake that accepts any certificate.
fn fetch_certificate(address: &str, host: &str) -> Option<CertificateDetails> {
    let stream = address.to_socket_addrs().ok()?.find_map(|at| {
        let stream = TcpStream::connect_timeout(&at, LIMIT).ok()?;
        stream.set_read_timeout(Some(LIMIT)).ok()?;
        stream.set_write_timeout(Some(LIMIT)).ok()?;
        Some(stream)
    })?;
    let context = SslContext::builder(SslMethod::tls_client()).ok()?.build();
    let mut ssl = Ssl::new(&context).ok()?;
    match host.parse::<IpAddr>() {
        Ok(address) => ssl.param_mut().set_ip(address).ok()?,
        Err(_) => {
            ssl.set_hostname(host).ok()?;
            ssl.param_mut().set_host(host).ok()?;
        }
    }
    let seen = Arc::new(Mutex::new(CertificateDetails::default()));
    let noted = Arc::clone(&seen);
    ssl.set_verify_callback(SslVerifyMode::PEER, move |is_valid, store| {
        let mut seen = noted.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_valid {
            seen.errors.insert(store.error().as_raw());
        }
        if store.error_depth() == 0 {
            seen.certificate = store.current_cert().map(ToOwned::to_owned);
        }
        true
    });
    // The broker's answer after the handshake does not matter.
    let _ = ssl.connect(stream);
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    Some(std::mem::take(&mut *seen))
}

/// The names that a certificate is valid for.
fn names(certificate: &X509Ref) -> String {
    let names = certificate.subject_alt_names();
    let named = names.iter().flatten().filter_map(|name| {
        let address = |bytes: &[u8]| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok(),
            _ => <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok(),
        };
        let ip = || name.ipaddress().and_then(address).map(|ip| ip.to_string());
        name.dnsname().map(str::to_owned).or_else(ip)
    });
    let named: Vec<String> = named.collect();
    match named.is_empty() {
        true => "none".to_owned(),
        false => named.join(", "),
    }
}

/// The issuer of a certificate.
fn issuer(certificate: &X509Ref) -> String {
    let entries = certificate.issuer_name().entries();
    let named = entries.filter_map(|entry| {
        let name = entry.object().nid().short_name().ok()?;
        let value = entry.data().to_string().ok()?;
        Some(format!("{name}={value}"))
    });
    named.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_failed_connection_is_found() {
        for (cause, expected) in [
            (
                "ssl://127.0.0.1:9/bootstrap: SSL handshake failed",
                Some("127.0.0.1:9"),
            ),
            (
                "sasl_ssl://[::1]:9/1: SSL handshake failed",
                Some("[::1]:9"),
            ),
            ("127.0.0.1:9/bootstrap: Disconnected", None),
        ] {
            assert_eq!(address(cause), expected, "{cause}");
        }
    }
}
