use super::*;

const SECONDS: Duration = Duration::from_secs(60);

/// An unsigned JWT with these claims.
fn jwt(claims: &str) -> String {
    let encode = |text: &str| BASE64.encode(text).replace('=', "");
    format!("{}.{}.", encode(r#"{"alg":"none"}"#), encode(claims))
}

fn unix(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH);
    since.expect("after 1970").as_secs()
}

/// The error for a file with this content.
fn error_of(text: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("the file is written");
    let path = file.path().display().to_string();
    let source = TokenFile::parse(&format!("file={path}")).expect("a file is named");
    let error = source.token().expect_err("no good token").to_string();
    assert!(error.contains(&path), "{error}");
    error.replace(&path, "PATH")
}

#[test]
fn a_token_is_read_anew_from_its_file_each_time() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let config = format!(
        "file={} extension_logicalCluster=lkc-1 extension_identityPoolId=pool-2",
        file.path().display()
    );
    let source = TokenFile::parse(&config).expect("a file is named");
    for (subject, end) in [("one", 60_u64), ("two", 90)] {
        let exp = unix(SystemTime::now()) + end;
        let value = jwt(&format!(r#"{{"sub":"{subject}","exp":{exp}.5}}"#));
        std::fs::write(file.path(), format!("{value}\n")).expect("the file is written");
        let token = source.token().expect("a token");
        assert_eq!(
            (token.value.as_str(), token.principal.as_str()),
            (value.as_str(), subject)
        );
        assert_eq!(unix(token.expires_at), exp);
        assert_eq!(token.extensions["logicalCluster"], "lkc-1");
        assert_eq!(token.extensions["identityPoolId"], "pool-2");
    }
}

#[test]
fn token_file_errors_do_not_show_the_token() {
    let expired = jwt(r#"{"sub":"planted","exp":1700000000}"#);
    let endless = jwt(r#"{"sub":"planted"}"#);
    let no_time = jwt(r#"{"exp":"planted"}"#);
    let signed_badly = format!("{}pla\u{7f}nted", jwt(r#"{"exp":9999999999}"#));
    let cases: [(&[u8], &str); 9] = [
        (b"", "PATH is empty"),
        (b" \n", "PATH is empty"),
        (b"planted", "PATH: no JWT"),
        (b"Bearer planted.planted.planted", "PATH: no JWT"),
        (b"\xff\xfeplanted", "PATH contains no JWT"),
        (
            expired.as_bytes(),
            "PATH: the token expired at 2023-11-14T22:13:20Z",
        ),
        (endless.as_bytes(), "(exp)"),
        (no_time.as_bytes(), "(exp)"),
        (signed_badly.as_bytes(), "PATH: no JWT"),
    ];
    for (text, says) in cases {
        let error = error_of(text);
        assert!(error.contains(says), "{says}: {error}");
        let token = String::from_utf8_lossy(text);
        let is_leaked = |part: &str| part.len() > 8 && error.contains(part);
        assert!(
            !error.contains("planted") && !token.split('.').any(is_leaked),
            "{error}"
        );
    }
    let large = error_of(&vec![b'a'; BYTES_MAX as usize + 1]);
    assert!(large.contains("larger"), "{large}");
    for (path, says) in [
        ("/no/such/token", "cannot read /no/such/token"),
        ("/dev/zero", "/dev/zero is not a file"),
    ] {
        let source = TokenFile::parse(&format!("file={path}")).expect("a file is named");
        let error = source.token().expect_err("no file").to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn a_property_without_a_file_is_refused_without_its_value() {
    for text in [
        "",
        "file=",
        "principal=planted",
        "file=/a extension_planted",
        "file=/a extension_auth=planted",
        "file=/a extension_x1=planted",
        "file=/a extension_x=pla\u{1}nted",
    ] {
        let error = TokenFile::parse(text).expect_err(text);
        assert_eq!(error.setting, CONFIG);
        assert!(!error.reason.contains("planted"), "{error}");
    }
    let spaced = TokenFile::parse("file=/a folder/token").expect("a path with a space");
    assert_eq!(spaced.path, Path::new("/a folder/token"));
}

#[test]
fn a_file_of_the_settings_goes_before_the_processes_source() {
    let mut config = ClientConfig::new();
    assert_eq!(TokenOrigin::of(&config), None);
    config
        .set("security.protocol", "SASL_SSL")
        .set("sasl.mechanism", "OAUTHBEARER");
    assert_eq!(TokenOrigin::of(&config), Some(TokenOrigin::Process));
    config.set(CONFIG, "file=/a");
    assert!(matches!(
        TokenOrigin::of(&config),
        Some(TokenOrigin::File(_))
    ));
    config.set("enable.sasl.oauthbearer.unsecure.jwt", "true");
    assert_eq!(TokenOrigin::of(&config), None);
}

#[test]
fn a_source_is_set_once_and_its_faults_are_reported() {
    // The only test of this process that sets it: no other test may create clients with it.
    use std::sync::atomic::{AtomicU32, Ordering};
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let none = TokenOrigin::Process.token().expect_err("no source");
    assert!(none.to_string().contains("set_token_source"), "{none}");
    set_token_source(|| match CALLS.fetch_add(1, Ordering::Relaxed) {
        0 => panic!("of the test"),
        1 => Err("the endpoint is away".into()),
        2 => Ok(Token::new(
            "pla\u{e9}nted",
            "me",
            SystemTime::now() + SECONDS,
        )),
        3 => Ok(Token::new("planted", "me", SystemTime::now())),
        _ => Ok(Token::new("good", "me", SystemTime::now() + SECONDS).with_extension("a", "b")),
    })
    .expect("the first one");
    let again = set_token_source(|| Err("never called".into()));
    assert_eq!(again, Err(TokenSourceAlreadySet));
    for says in ["panicked", "is away", "visible", "expired"] {
        let error = TokenOrigin::Process.token().expect_err(says).to_string();
        assert!(
            error.contains(says) && !error.contains("planted"),
            "{error}"
        );
    }
    let token = TokenOrigin::Process.token().expect("a token");
    assert_eq!(token.value, "good");
    assert!(!format!("{token:?}").contains("good"), "{token:?}");
}

#[test]
fn the_next_token_is_requested_before_the_last_expires() {
    let file = TokenOrigin::File(TokenFile::parse("file=/a").expect("a file"));
    let seconds = Duration::from_secs;
    assert_eq!(
        TokenOrigin::Process.refresh_after(seconds(900)),
        seconds(675)
    );
    assert_eq!(file.refresh_after(seconds(20)), seconds(15));
    assert_eq!(file.refresh_after(seconds(86_400)), seconds(300));
    assert_eq!(file.refresh_after(Duration::ZERO), seconds(1));
}
