//! The keys of a set, which of them is chosen, and what is seen of its file.

use super::*;
use serde_json::json;
use std::fs::File;
use std::time::SystemTime;

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

fn named_rsa(id: &str, algorithm: Option<&str>) -> Value {
    let mut key = rsa(342);
    key["kid"] = id.into();
    if let Some(algorithm) = algorithm {
        key["alg"] = algorithm.into();
    }
    key
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
        set(&[
            named_rsa("a", None),
            ec(json!({"kid": "a"})),
            named_rsa("a", Some("PS256")),
        ]),
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
            select(keys, id, Algorithm::ES256).is_some(),
            expected,
            "{:?} {id:?}",
            ids(keys)
        );
    }
}

#[test]
fn keys_with_the_same_id_are_told_apart_by_the_algorithm() {
    let keys = parse(&set(&[
        named_rsa("a", Some("RS256")),
        named_rsa("a", Some("PS256")),
        ec(json!({"kid": "a"})),
    ]));
    let keys = keys.expect("three keys");
    for algorithm in [Algorithm::RS256, Algorithm::PS256, Algorithm::ES256] {
        let key = select(&keys, Some("a"), algorithm).expect("a key of this id");
        assert_eq!(key.algorithms, [algorithm]);
    }
    let key = select(&keys, Some("a"), Algorithm::HS256).expect("a key of this id");
    assert!(!key.algorithms.contains(&Algorithm::HS256));
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

#[test]
fn a_file_in_place_of_another_is_read_although_time_and_size_are_equal() {
    let dir = tempfile::tempdir().expect("a folder");
    let (path, new) = (dir.path().join("keys.json"), dir.path().join("new.json"));
    write(&path, &set(&[ec(json!({"kid": "a"}))]), 1);
    let key_set = KeySet::open(&path).expect("valid keys");
    write(&new, &set(&[ec(json!({"kid": "b"}))]), 1);
    std::fs::rename(&new, &path).expect("the same folder");
    let mut watch = key_set.watch.lock().expect("no panic");
    assert!(matches!(key_set.reload(&mut watch), Reload::Replaced));
    assert!(matches!(key_set.reload(&mut watch), Reload::Unchanged));
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
