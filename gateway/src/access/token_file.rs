//! Bearer tokens from a file that contains their hashes, not the tokens.
//!
//! ```toml
//! [[tokens]]
//! name = "mobile"
//! sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
//! source = "/callers/mobile"          # default: /callers/<name>
//! rate = 100                          # requests per second; default: no limit of its own
//! expires = "2027-01-01T00:00:00Z"    # default: never
//! [tokens.rights]                     # default: none
//! post = ["shop.*"]
//! stream = ["shop.order-placed.v1"]
//! status = true
//! ```
//!
//! A name may have several tokens, so that a token can be replaced without an interruption.
//!
//! A presented token is hashed and compared with every entry in constant time, without an early
//! exit. A map from hash to entry would be faster, but the time of a lookup depends on the stored
//! hashes: a token that an operator invented could be guessed offline from what leaks. The scan is
//! bounded by 1,000 entries.
//!
//! Must not know HTTP.

use super::caller_name::{is_caller_name, is_source, source_of};
use super::files::{parse_toml, read_file};
use super::{AccessError, Principal, Rights};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rand::TryRng;
use rand::rngs::SysRng;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;
use subtle::{ConditionallySelectable, ConstantTimeEq};

const WHAT: &str = "token file";

/// The characters that a token must have at least. A shorter one could be guessed.
const MIN_TOKEN_BYTES: usize = 20;

/// The entries that a file may have.
const MAX_ENTRIES: usize = 1_000;

/// The hash of a token as the token file has it: SHA-256, 64 hexadecimal digits.
///
/// ```
/// use evenkeel_gateway::access::hash_token;
///
/// assert!(hash_token("ek_example").starts_with("7835882f"));
/// ```
pub fn hash_token(token: &str) -> String {
    let digits = sha256(token).map(|byte| format!("{byte:02x}"));
    digits.concat()
}

/// A new token: 256 bits of the operating system's randomness as base64url, after `ek_`, by which
/// scanners of leaked secrets can recognise it.
///
/// # Panics
/// If the operating system provides no randomness.
pub fn new_token() -> String {
    let mut bytes = [0_u8; 32];
    SysRng
        .try_fill_bytes(&mut bytes)
        .expect("the operating system provides randomness");
    format!("ek_{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// The tokens of a file, read once.
pub(super) struct TokenFile {
    tokens: Vec<Token>,
}

struct Token {
    hash: [u8; 32],
    expires: Option<Timestamp>,
    principal: Principal,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    tokens: Vec<Entry>,
}

/// A table `[[tokens]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    sha256: String,
    source: Option<String>,
    rate: Option<u32>,
    expires: Option<Timestamp>,
    #[serde(default)]
    rights: Rights,
}

impl TokenFile {
    /// Reads a file. Logs a warning if others than its owner and group can access it.
    pub(super) fn open(path: &Path) -> Result<Self, AccessError> {
        let (text, metadata) = read_file(WHAT, path)?;
        if is_accessible_to_others(&metadata) {
            tracing::warn!(
                path = %path.display(),
                "others than the owner and the group can access the token file; run chmod 640"
            );
        }
        let file = Self::parse(&text).map_err(|reason| AccessError::Invalid {
            what: WHAT,
            path: path.to_owned(),
            reason,
        })?;
        let now = Timestamp::now();
        for token in file.tokens.iter().filter(|token| token.is_expired(now)) {
            tracing::warn!(caller = %token.principal.name, "a token of the token file has expired");
        }
        Ok(file)
    }

    fn parse(text: &str) -> Result<Self, String> {
        let document: Document = parse_toml(text).map_err(|fault| fault.to_string())?;
        if document.tokens.is_empty() {
            return Err("it has no tokens".to_owned());
        }
        if document.tokens.len() > MAX_ENTRIES {
            return Err(format!("it has more than {MAX_ENTRIES} tokens"));
        }
        let mut hashes = HashSet::new();
        let mut callers: HashMap<Arc<str>, Principal> = HashMap::new();
        let mut tokens = Vec::with_capacity(document.tokens.len());
        for (number, entry) in (1..).zip(document.tokens) {
            let token = entry
                .into_token()
                .map_err(|reason| format!("token {number} {reason}"))?;
            if !hashes.insert(token.hash) {
                return Err(format!("token {number} has the hash of another one"));
            }
            let name = token.principal.name.clone();
            let caller = callers
                .entry(name)
                .or_insert_with(|| token.principal.clone());
            if *caller != token.principal {
                return Err(format!(
                    "token {number} has the name of another one, and another source, rate or \
                     rights; tokens of one caller must agree in them"
                ));
            }
            tokens.push(token);
        }
        Ok(Self { tokens })
    }

    /// The caller that has this token, or why there is none. The reason is for logs.
    pub(super) fn principal(&self, token: &str, now: Timestamp) -> Result<Principal, &'static str> {
        if token.len() < MIN_TOKEN_BYTES {
            return Err("the token is too short");
        }
        let presented = sha256(token);
        let mut found = u32::MAX;
        for (index, token) in (0_u32..).zip(&self.tokens) {
            let is_equal = presented[..].ct_eq(&token.hash[..]);
            found.conditional_assign(&index, is_equal);
        }
        match self.tokens.get(found as usize) {
            None => Err("the token is unknown"),
            Some(token) if token.is_expired(now) => Err("the token has expired"),
            Some(token) => Ok(token.principal.clone().with_valid_until(token.expires)),
        }
    }

    /// Whether a caller of another origin has the name or the source of a caller in this file, and
    /// would share its rate, its `Idempotency-Key`s or the identity of its events.
    pub(super) fn reserves(&self, caller: &Principal) -> bool {
        self.tokens.iter().any(|token| {
            token.principal.name == caller.name || token.principal.source == caller.source
        })
    }
}

impl Token {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Entry {
    fn into_token(self) -> Result<Token, &'static str> {
        if !is_caller_name(&self.name) {
            return Err("needs a name of 1 to 128 visible ASCII characters");
        }
        let hash = parse_hash(&self.sha256)
            .ok_or("needs in sha256 the 64 hexadecimal digits that `gateway token new` prints")?;
        let source = match self.source {
            Some(source) if !is_source(&source) => {
                return Err("needs a source that is a URI reference, such as /callers/mobile");
            }
            Some(source) => source,
            None => source_of("/callers/{sub}", &self.name),
        };
        if self.rate == Some(0) {
            return Err("needs a rate above 0; remove the entry to lock the caller out");
        }
        let principal = Principal::new(self.name, self.rights)
            .with_source(source)
            .with_rate(self.rate);
        Ok(Token {
            hash,
            expires: self.expires,
            principal,
        })
    }
}

fn sha256(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Reads 64 hexadecimal digits.
fn parse_hash(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits
        .chunks_exact(2)
        .map(|pair| pair[0] * 16 + pair[1])
        .collect();
    match digits.len() {
        64 => bytes.try_into().ok(),
        _ => None,
    }
}

#[cfg(unix)]
fn is_accessible_to_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o007 != 0
}

#[cfg(not(unix))]
fn is_accessible_to_others(_: &Metadata) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "ek_a-token-of-the-tests";

    /// A file with one token and further lines of its table.
    fn entry(name: &str, token: &str, rest: &str) -> String {
        let hash = hash_token(token);
        format!("[[tokens]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
    }

    fn now() -> Timestamp {
        "2026-06-01T00:00:00Z".parse().expect("a time")
    }

    #[test]
    fn hashes_are_those_of_sha256sum() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_token("abc"), abc);
        assert_eq!(parse_hash(abc), Some(sha256("abc")));
        assert_eq!(parse_hash(&abc.to_uppercase()), Some(sha256("abc")));
        for bad in [
            "",
            "ba",
            &abc[1..],
            &format!("{abc}0"),
            &abc.replace('b', "g"),
        ] {
            assert_eq!(parse_hash(bad), None, "{bad}");
        }
    }

    #[test]
    fn new_tokens_differ_and_have_256_bits() {
        let (first, second) = (new_token(), new_token());
        assert_ne!(first, second);
        let random = first.strip_prefix("ek_").expect("the prefix");
        let bytes = URL_SAFE_NO_PAD.decode(random).expect("base64url");
        assert_eq!(bytes.len(), 32);
    }

    #[test]
    fn the_caller_is_found_by_its_token() {
        let text = entry(
            "mobile",
            TOKEN,
            "rate = 5\n[tokens.rights]\npost = [\"shop.*\"]",
        ) + &entry(
            "partner",
            "ek_another-token-of-tests",
            "source = \"urn:partner\"",
        );
        let file = TokenFile::parse(&text).expect("a valid file");
        let mobile = file.principal(TOKEN, now()).expect("its token");
        assert_eq!(
            (&*mobile.name, &*mobile.source),
            ("mobile", "/callers/mobile")
        );
        assert_eq!(mobile.rate, Some(5));
        assert!(mobile.rights.may_post("shop.order-placed.v1") && !mobile.rights.status);
        let partner = file.principal("ek_another-token-of-tests", now());
        let partner = partner.expect("its token");
        assert_eq!(&*partner.source, "urn:partner");
        assert!(
            !partner.rights.may_post("shop.order-placed.v1"),
            "no rights by default"
        );
        for unknown in [
            "",
            "ek_a-token-of-the-test",
            &TOKEN.to_uppercase(),
            &hash_token(TOKEN),
        ] {
            assert!(file.principal(unknown, now()).is_err(), "{unknown}");
        }
    }

    #[test]
    fn short_tokens_are_refused_even_if_listed() {
        for (token, expected) in [
            ("0123456789012345678", false),
            ("01234567890123456789", true),
        ] {
            let file = TokenFile::parse(&entry("mobile", token, "")).expect("a valid file");
            assert_eq!(file.principal(token, now()).is_ok(), expected, "{token}");
        }
    }

    #[test]
    fn a_token_ends_when_it_expires() {
        for (expires, expected) in [
            ("2026-05-31T23:59:59Z", false),
            ("2026-06-01T00:00:00Z", false),
            ("2026-06-01T00:00:01Z", true),
        ] {
            let text = entry("mobile", TOKEN, &format!("expires = \"{expires}\""));
            let file = TokenFile::parse(&text).expect("a valid file");
            assert_eq!(file.principal(TOKEN, now()).is_ok(), expected, "{expires}");
        }
    }

    #[test]
    fn a_caller_may_have_two_tokens_that_agree() {
        let second = "ek_another-token-of-tests";
        let check = |rest: &str| {
            TokenFile::parse(&(entry("mobile", TOKEN, "") + &entry("mobile", second, rest)))
        };
        let file = check("expires = \"2027-01-01T00:00:00Z\"").expect("they agree");
        assert!(file.principal(TOKEN, now()).is_ok() && file.principal(second, now()).is_ok());
        for rest in [
            "rate = 5",
            "source = \"/x\"",
            "[tokens.rights]\nstatus = true",
        ] {
            assert!(check(rest).is_err(), "{rest}");
        }
    }

    #[test]
    fn invalid_files_are_refused_without_their_values() {
        let secret = "a-secret-in-the-wrong-place";
        for text in [
            String::new(),
            "tokens = []".to_owned(),
            format!("[[tokens]]\nname = \"mobile\"\nsha256 = \"{secret}\"\n"),
            format!("[[tokens]]\nname = \"mobile\"\ntoken = \"{secret}\"\n"),
            entry("mobile", TOKEN, &format!("rate = \"{secret}\"")),
            entry("mobile", TOKEN, "rate = 0"),
            entry("mobile", TOKEN, "rate = -1"),
            entry("mobile", TOKEN, &format!("expires = \"{secret}\"")),
            entry("mobile", TOKEN, "[tokens.rights]\nadmin = true"),
            entry("mobile", TOKEN, "source = \"with space\""),
            entry("mo bile", TOKEN, ""),
            entry("", TOKEN, ""),
            entry("mobile", TOKEN, "") + &entry("other", TOKEN, ""),
        ] {
            let reason = TokenFile::parse(&text).err().expect(&text);
            assert!(!reason.contains(secret), "{reason}");
        }
    }

    #[test]
    fn names_and_sources_of_the_file_are_reserved() {
        let text = entry("mobile", TOKEN, "source = \"/apps/mobile\"");
        let file = TokenFile::parse(&text).expect("a valid file");
        let caller = |name: &str| Principal::new(name, Rights::default());
        assert!(file.reserves(&caller("mobile")));
        assert!(file.reserves(&caller("other").with_source("/apps/mobile")));
        assert!(!file.reserves(&caller("other")));
    }
}
