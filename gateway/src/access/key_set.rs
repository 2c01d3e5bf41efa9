//! The public keys that verify JWTs, from a JWK set (RFC 7517) in a file.
//!
//! Only keys for signatures are used, and each only with algorithms of its own kind, so that a
//! public key can never be taken for the secret of an HMAC. A key of an unknown kind is ignored
//! with a warning. A set with a private or symmetric key is refused.
//!
//! The file is looked at once per second at most, by the request that comes first: one `stat` on
//! a local file, and a read of at most 1 MiB if it changed. While the new content is invalid, the
//! old keys stay.
//!
//! Must not know tokens or claims.

use super::AccessError;
use super::files::read_file;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

const WHAT: &str = "key set";

/// The keys that a set may have.
const MAX_KEYS: usize = 100;

/// The time between two looks at the file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The lengths in base64url of what ring verifies with: an RSA modulus of at least 2,048 bits, and
/// a coordinate of 256 or 384 bits.
const MIN_MODULUS_CHARS: usize = 342;
const COORDINATE_256_CHARS: usize = 43;
const COORDINATE_384_CHARS: usize = 64;

const RSA_ALGORITHMS: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// A public key, and what it may verify.
pub(super) struct Key {
    id: Option<String>,
    /// The key itself.
    pub(super) key: DecodingKey,
    /// The algorithms that it may be used with. None is symmetric.
    pub(super) algorithms: Vec<Algorithm>,
}

/// The keys of a file, read again when the file changes.
pub(super) struct KeySet {
    path: PathBuf,
    keys: RwLock<Arc<[Key]>>,
    watch: Mutex<Watch>,
}

/// What was seen of the file.
struct Watch {
    checked: Instant,
    stamp: Option<Stamp>,
    /// Whether the latest read failed.
    failed: bool,
}

/// Modification time and size, by which a change is recognised.
type Stamp = (SystemTime, u64);

/// What a look at the file had as its result.
#[derive(Debug)]
enum Reload {
    Unchanged,
    Replaced,
    Failed(AccessError),
    /// The same failure as before, which was logged then.
    StillFailing,
}

impl KeySet {
    /// Reads the keys.
    pub(super) fn open(path: &Path) -> Result<Self, AccessError> {
        let stamp = stamp(path);
        let keys = load(path)?;
        Ok(Self {
            path: path.to_owned(),
            keys: RwLock::new(keys),
            watch: Mutex::new(Watch {
                checked: Instant::now(),
                stamp,
                failed: false,
            }),
        })
    }

    /// The keys. Those of a changed file at most a second after the change.
    pub(super) fn current(&self) -> Arc<[Key]> {
        self.check();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&keys)
    }

    /// Looks at the file if it is due. Requests that come meanwhile use the old keys.
    fn check(&self) {
        let Ok(mut watch) = self.watch.try_lock() else {
            return;
        };
        let now = Instant::now();
        if now.duration_since(watch.checked) < CHECK_INTERVAL {
            return;
        }
        watch.checked = now;
        let path = self.path.display();
        match self.reload(&mut watch) {
            Reload::Unchanged | Reload::StillFailing => {}
            Reload::Replaced => tracing::info!(%path, "the key set was reloaded"),
            Reload::Failed(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, %path, "the key set cannot be reloaded; its old keys stay");
            }
        }
    }

    fn reload(&self, watch: &mut Watch) -> Reload {
        // Taken before the read: a change during the read is found by the next look.
        let stamp = stamp(&self.path);
        let has_changed = stamp != watch.stamp;
        if !has_changed && !watch.failed {
            return Reload::Unchanged;
        }
        watch.stamp = stamp;
        let has_failed_before = std::mem::replace(&mut watch.failed, false);
        match load(&self.path) {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
                Reload::Replaced
            }
            Err(error) => {
                watch.failed = true;
                match has_failed_before && !has_changed {
                    true => Reload::StillFailing,
                    false => Reload::Failed(error),
                }
            }
        }
    }
}

/// The key for a token: the one with the id that the token names. The id may be missing, in the
/// token or the set, if the set has one key only.
pub(super) fn select<'a>(keys: &'a [Key], id: Option<&str>) -> Option<&'a Key> {
    match (keys, id) {
        ([only], None) => Some(only),
        ([only], Some(_)) if only.id.is_none() => Some(only),
        (_, None) => None,
        (keys, Some(id)) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn load(path: &Path) -> Result<Arc<[Key]>, AccessError> {
    let (text, _) = read_file(WHAT, path)?;
    let keys = parse(&text).map_err(|reason| AccessError::Invalid {
        what: WHAT,
        path: path.to_owned(),
        reason,
    })?;
    Ok(keys.into())
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

fn parse(text: &str) -> Result<Vec<Key>, String> {
    // The message of serde_json can contain a part of a key, its position cannot.
    let document: Document = serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        format!("it is not a JWK set: line {line}, column {column}")
    })?;
    if document.keys.len() > MAX_KEYS {
        return Err(format!("it has more than {MAX_KEYS} keys"));
    }
    let mut keys = Vec::new();
    for (number, value) in (1..).zip(document.keys) {
        if value.get("d").is_some() || value.get("k").is_some() {
            return Err(format!(
                "key {number} is private or symmetric; the gateway needs the public keys only"
            ));
        }
        match usable(value) {
            Some(key) => keys.push(key),
            None => tracing::warn!(number, "a key of the key set cannot verify tokens: ignored"),
        }
    }
    let fault = match keys.as_slice() {
        [] => "it has no key that can verify tokens",
        [_] => return Ok(keys),
        several if several.iter().any(|key| key.id.is_none()) => {
            "it has several keys, so each needs a `kid`"
        }
        several if has_repeated_id(several) => "two of its keys have the same `kid`",
        _ => return Ok(keys),
    };
    Err(fault.to_owned())
}

fn has_repeated_id(keys: &[Key]) -> bool {
    let mut ids = HashSet::new();
    !keys.iter().all(|key| ids.insert(key.id.as_deref()))
}

/// The key, if it is one for signatures of a known kind.
fn usable(value: Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let common = &jwk.common;
    let usage = &common.public_key_use;
    let is_for_signatures = matches!(usage, None | Some(PublicKeyUse::Signature));
    let may_verify = |operations: &Vec<KeyOperations>| operations.contains(&KeyOperations::Verify);
    if !is_for_signatures || !common.key_operations.as_ref().is_none_or(may_verify) {
        return None;
    }
    Some(Key {
        id: common.key_id.clone(),
        key: DecodingKey::from_jwk(&jwk).ok()?,
        algorithms: algorithms(&jwk.algorithm, common.key_algorithm)?,
    })
}

/// The algorithms of a key: those of its kind, or the one of them that the set names.
fn algorithms(key: &AlgorithmParameters, named: Option<KeyAlgorithm>) -> Option<Vec<Algorithm>> {
    let possible: &[Algorithm] = match key {
        AlgorithmParameters::RSA(key) if key.n.len() >= MIN_MODULUS_CHARS => RSA_ALGORITHMS,
        AlgorithmParameters::EllipticCurve(key) => {
            let (algorithm, chars): (&[Algorithm], usize) = match key.curve {
                EllipticCurve::P256 => (&[Algorithm::ES256], COORDINATE_256_CHARS),
                EllipticCurve::P384 => (&[Algorithm::ES384], COORDINATE_384_CHARS),
                _ => return None,
            };
            if key.x.len() != chars || key.y.len() != chars {
                return None;
            }
            algorithm
        }
        AlgorithmParameters::OctetKeyPair(key)
            if key.curve == EllipticCurve::Ed25519 && key.x.len() == COORDINATE_256_CHARS =>
        {
            &[Algorithm::EdDSA]
        }
        _ => return None,
    };
    let Some(named) = named else {
        return Some(possible.to_vec());
    };
    let named = Algorithm::from_str(&named.to_string()).ok()?;
    possible.contains(&named).then(|| vec![named])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs::File;

    /// The public key of an ES256 pair of the tests.
    fn ec(members: Value) -> Value {
        let mut key = json!({
            "kty": "EC",
            "crv": "P-256",
            "x": "u4KWHrdwhv0WQ0PUygnLC4cpF2tU3REsygHJOgDMbU4",
            "y": "CNPsrq2xQtrOnl3wgovuet7AGuNH3jsh57IRtm563IA",
        });
        let (Some(key_members), Value::Object(members)) = (key.as_object_mut(), members) else {
            panic!("both are objects")
        };
        key_members.extend(members);
        key
    }

    fn rsa(modulus_chars: usize) -> Value {
        json!({"kty": "RSA", "e": "AQAB", "n": "w".repeat(modulus_chars)})
    }

    fn set(keys: &[Value]) -> String {
        json!({"keys": keys}).to_string()
    }

    fn ids(keys: &[Key]) -> Vec<Option<&str>> {
        keys.iter().map(|key| key.id.as_deref()).collect()
    }

    #[test]
    fn a_key_verifies_only_algorithms_of_its_kind() {
        let ed = json!({
            "kty": "OKP", "crv": "Ed25519", "x": "a3WzG02EcA_0Kg7Vc1xYmGWuL7n9xOMQPiikkJIVheE",
        });
        let mut rs512 = rsa(342);
        rs512["alg"] = "RS512".into();
        for (key, expected) in [
            (ec(json!({})), &[Algorithm::ES256][..]),
            (
                ec(json!({"alg": "ES256", "use": "sig"})),
                &[Algorithm::ES256][..],
            ),
            (ed, &[Algorithm::EdDSA][..]),
            (rsa(342), RSA_ALGORITHMS),
            (rs512, &[Algorithm::RS512][..]),
        ] {
            let keys = parse(&set(std::slice::from_ref(&key))).expect("a usable key");
            assert_eq!(keys[0].algorithms, expected, "{key}");
        }
    }

    #[test]
    fn keys_that_cannot_verify_are_ignored() {
        let ignored = [
            ec(json!({"alg": "HS256"})),
            ec(json!({"alg": "RS256"})),
            ec(json!({"alg": "ES384"})),
            ec(json!({"alg": "unheard-of"})),
            ec(json!({"use": "enc"})),
            ec(json!({"key_ops": ["sign"]})),
            ec(json!({"crv": "P-521"})),
            ec(json!({"crv": "P-384"})),
            ec(json!({"x": "short"})),
            rsa(341),
            json!({"kty": "future"}),
            json!("no object"),
        ];
        for key in &ignored {
            let error = parse(&set(std::slice::from_ref(key)))
                .err()
                .expect("no usable key");
            assert!(error.contains("no key"), "{error}");
        }
        let mut keys = ignored.to_vec();
        keys.push(ec(json!({"kid": "good"})));
        let keys = parse(&set(&keys)).expect("one usable key");
        assert_eq!(ids(&keys), [Some("good")]);
    }

    #[test]
    fn unsafe_and_ambiguous_sets_are_refused() {
        for text in [
            String::new(),
            "{}".to_owned(),
            set(&[]),
            set(&[ec(json!({"d": "private"}))]),
            set(&[json!({"kty": "oct", "k": "c2VjcmV0"}), ec(json!({}))]),
            set(&[ec(json!({"kid": "a"})), ec(json!({}))]),
            set(&[ec(json!({"kid": "a"})), ec(json!({"kid": "a"}))]),
            set(&vec![json!({}); MAX_KEYS + 1]),
        ] {
            assert!(parse(&text).is_err(), "{text}");
        }
    }

    #[test]
    fn several_keys_are_told_apart_by_their_id() {
        let two = parse(&set(&[ec(json!({"kid": "a"})), ec(json!({"kid": "b"}))]));
        let two = two.expect("two keys");
        let named = parse(&set(&[ec(json!({"kid": "a"}))])).expect("one key");
        let nameless = parse(&set(&[ec(json!({}))])).expect("one key");
        for (keys, id, expected) in [
            (&two, Some("b"), true),
            (&two, Some("c"), false),
            (&two, None, false),
            (&named, Some("a"), true),
            (&named, Some("b"), false),
            (&named, None, true),
            (&nameless, None, true),
            (&nameless, Some("x"), true),
        ] {
            assert_eq!(
                select(keys, id).is_some(),
                expected,
                "{:?} {id:?}",
                ids(keys)
            );
        }
    }

    /// Writes the file with its own modification time, so that every change is seen.
    fn write(path: &Path, text: &str, age_secs: u64) {
        std::fs::write(path, text).expect("written");
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(age_secs);
        let file = File::options().write(true).open(path).expect("opened");
        file.set_modified(time).expect("the time is set");
    }

    #[test]
    fn a_broken_file_keeps_the_keys_and_is_reported_once() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys.json");
        write(&path, &set(&[ec(json!({"kid": "a"}))]), 1);
        let key_set = KeySet::open(&path).expect("valid keys");
        let look = || {
            let mut watch = key_set.watch.lock().expect("no panic");
            let reload = key_set.reload(&mut watch);
            let keys = key_set.keys.read().expect("no panic");
            (reload, keys[0].id.clone().expect("an id"))
        };
        assert!(matches!(look(), (Reload::Unchanged, id) if id == "a"));
        write(&path, "{", 2);
        assert!(matches!(look(), (Reload::Failed(_), id) if id == "a"));
        assert!(matches!(look(), (Reload::StillFailing, id) if id == "a"));
        write(&path, "[", 3);
        assert!(
            matches!(look(), (Reload::Failed(_), id) if id == "a"),
            "another fault"
        );
        std::fs::remove_file(&path).expect("removed");
        assert!(
            matches!(look(), (Reload::Failed(_), id) if id == "a"),
            "no file"
        );
        // An older file than the first, as after a rollback.
        write(&path, &set(&[ec(json!({"kid": "b"}))]), 0);
        assert!(matches!(look(), (Reload::Replaced, id) if id == "b"));
        assert!(matches!(look(), (Reload::Unchanged, id) if id == "b"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_file_is_looked_at_once_per_second() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("keys.json");
        write(&path, &set(&[ec(json!({"kid": "a"}))]), 1);
        let key_set = KeySet::open(&path).expect("valid keys");
        write(&path, &set(&[ec(json!({"kid": "b"}))]), 2);
        let id = || key_set.current()[0].id.clone().expect("an id");
        tokio::time::advance(Duration::from_millis(999)).await;
        assert_eq!(id(), "a");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(id(), "b");
    }
}
