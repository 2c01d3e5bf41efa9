//! The public keys that verify JWTs, from a JWK set (RFC 7517) in a file.
//!
//! Only keys for signatures are used, and each only with algorithms of its own kind, so that a
//! public key can never be taken for the secret of an HMAC. A key of an unknown kind is ignored
//! with a warning. A set with a private or symmetric key is refused.
//!
//! Keys may share an id if they have no algorithm in common (RFC 7517, 4.5): the algorithm of the
//! token decides.
//!
//! The file is looked at once per second at most, by the request that comes first: one `stat` on
//! a local file, and a read of at most 1 MiB if it changed. While the new content is invalid, the
//! old keys stay.
//!
//! Must not know tokens or claims.

use super::AccessError;
use super::files::{FileStamp, read_file};
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
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
    stamp: Option<FileStamp>,
    /// Whether the latest read failed.
    failed: bool,
}

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
        let stamp = FileStamp::of(path);
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
        let stamp = FileStamp::of(&self.path);
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

/// The key for a token: the one with the id that the token names, and of several with this id the
/// one for its algorithm. The id may be missing, in the token or the set, if the set has one key
/// only. Whether the algorithm is that of the key remains to be checked.
pub(super) fn select<'a>(
    keys: &'a [Key],
    id: Option<&str>,
    algorithm: Algorithm,
) -> Option<&'a Key> {
    match (keys, id) {
        ([only], None) => Some(only),
        ([only], Some(_)) if only.id.is_none() => Some(only),
        (_, None) => None,
        (keys, Some(id)) => {
            let mut named = keys.iter().filter(|key| key.id.as_deref() == Some(id));
            let first = named.clone().next();
            named
                .find(|key| key.algorithms.contains(&algorithm))
                .or(first)
        }
    }
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
        several if has_ambiguous_id(several) => {
            "two of its keys have the same `kid`, and an algorithm in common"
        }
        _ => return Ok(keys),
    };
    Err(fault.to_owned())
}

/// Whether two keys could be meant by the same token.
fn has_ambiguous_id(keys: &[Key]) -> bool {
    let is_like = |one: &Key, other: &Key| {
        let mut algorithms = one.algorithms.iter();
        one.id == other.id && algorithms.any(|shared| other.algorithms.contains(shared))
    };
    let mut keys = keys.iter().enumerate();
    let all = keys.clone();
    keys.any(|(at, key)| {
        all.clone()
            .skip(at + 1)
            .any(|(_, later)| is_like(key, later))
    })
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
mod tests;
