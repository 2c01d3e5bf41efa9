//! Parses the address of the admin server.

use std::net::{Ipv4Addr, SocketAddr};

/// Parses the address of an admin server: `127.0.0.1:9100`, `[::1]:9100`, or a port alone (`9100`,
/// `:9100`, `localhost:9100`), which means 127.0.0.1 and cannot be reached from another machine.
/// For access from outside, such as by a kubelet or by Prometheus on another machine, name the
/// address: `0.0.0.0:9100`, or `[::]:9100`.
///
/// # Errors
/// Returns an error with the valid forms for any other text.
///
/// # Examples
/// ```
/// use evenkeel::telemetry::daemon::admin_address;
///
/// assert_eq!(admin_address("9100"), admin_address("127.0.0.1:9100"));
/// assert_eq!(admin_address("0.0.0.0:9100").unwrap().to_string(), "0.0.0.0:9100");
/// ```
pub fn admin_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text.strip_prefix("localhost").unwrap_or(text);
    let port = match port.strip_prefix(':') {
        Some(port) => port,
        None if port.len() == text.len() => port,
        None => "",
    };
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if is_number => Ok((Ipv4Addr::LOCALHOST, port).into()),
        _ => Err(format!(
            "{text:?} is not an address; write a port, such as 9100, to listen on this machine only, \
             or 0.0.0.0:9100 to accept connections from others"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::admin_address;

    #[test]
    fn a_bare_port_binds_to_localhost_unless_asked_otherwise() {
        for (text, expected) in [
            ("9100", Some("127.0.0.1:9100")),
            (":9100", Some("127.0.0.1:9100")),
            ("localhost:9100", Some("127.0.0.1:9100")),
            ("0", Some("127.0.0.1:0")),
            ("0.0.0.0:9100", Some("0.0.0.0:9100")),
            ("[::]:9100", Some("[::]:9100")),
            ("[::1]:9100", Some("[::1]:9100")),
            ("", None),
            (":", None),
            ("+9100", None),
            ("localhost9100", None),
            ("65536", None),
            ("0.0.0.0", None),
            ("example.org:9100", None),
        ] {
            let address = admin_address(text).ok().map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{text:?}");
        }
    }
}
