//! Trust: pins and signatures decide what is loaded where the operator asks for them.

use std::io::Cursor;

use minisign::KeyPair;
use scutwork::plugin::embedded;
use scutwork::plugin::trust::{Trust, TrustedKey};

use crate::support::program::Place;
use crate::support::shelf::{Shelf, version};

fn key_pair() -> KeyPair {
    KeyPair::generate_unencrypted_keypair().unwrap()
}

fn sign(pair: &KeyPair, wasm: &[u8]) -> Vec<u8> {
    let comment = Some("release 7");
    minisign::sign(Some(&pair.pk), &pair.sk, Cursor::new(wasm), comment, None)
        .unwrap()
        .into_string()
        .into_bytes()
}

fn public(pair: &KeyPair) -> String {
    pair.pk.to_box().unwrap().to_string()
}

/// A plugin directory that loads what these keys signed.
fn trusting(pairs: &[&KeyPair]) -> Shelf {
    let keys = pairs.iter().map(|pair| TrustedKey::parse(&public(pair)));
    let keys: Option<Vec<_>> = keys.collect();
    let shelf = Shelf::with(
        |_| {},
        |mut settings| {
            settings.rules.trust = Trust::Keys(keys.unwrap());
            settings
        },
    );
    // What is built in needs no signature.
    shelf.expect_added("dots");
    shelf
}

#[test]
fn a_pinned_plugin_is_loaded_and_no_other() {
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm", &version(1));
    let first = shelf.expect_added("echo");
    shelf.put(
        "echo.toml",
        format!("sha256 = \"{}\"", first.digest).as_bytes(),
    );
    shelf.expect_replaced("echo");

    shelf.put("echo.wasm", &version(2));
    let reason = shelf.expect_refused("echo.wasm", true);
    let other = reason.split(' ').nth(3).unwrap().trim_end_matches(',');
    assert_ne!(other, first.digest);
    assert!(
        reason.contains(&format!("pins {}", first.digest)),
        "{reason}"
    );
    assert_eq!(shelf.get("echo").unwrap().digest, first.digest);

    shelf.put("echo.toml", format!("sha256 = \"{other}\"").as_bytes());
    assert_eq!(shelf.expect_replaced("echo").digest, other);
}

#[test]
fn a_plugin_is_loaded_when_its_signature_arrives() {
    let pair = key_pair();
    let shelf = trusting(&[&key_pair(), &pair]);
    shelf.put("echo.wasm", &version(1));
    let reason = shelf.expect_refused("echo.wasm", false);
    assert!(reason.contains("minisign -Sm echo.wasm"), "{reason}");

    shelf.put("echo.wasm.minisig", &sign(&pair, &version(1)));
    let signed = shelf.expect_added("echo").signed.clone().unwrap();
    assert_eq!(signed.comment, "release 7");
    // As the public key's file has it.
    assert!(public(&pair).contains(&signed.key), "{}", signed.key);
}

#[test]
fn what_is_signed_wrongly_or_by_a_stranger_is_refused_and_what_served_serves_on() {
    let (pair, stranger) = (key_pair(), key_pair());
    let shelf = trusting(&[&pair]);
    shelf.put("echo.wasm.minisig", &sign(&pair, &version(1)));
    shelf.put("echo.wasm", &version(1));
    let first = shelf.expect_added("echo");

    shelf.put("echo.wasm", &version(2));
    let reason = shelf.expect_refused("echo.wasm", true);
    assert!(reason.contains("is wrong"), "{reason}");
    shelf.put("echo.wasm.minisig", &sign(&stranger, &version(2)));
    let reason = shelf.expect_refused("echo.wasm", true);
    assert!(reason.contains("not among trust.keys"), "{reason}");
    assert_eq!(shelf.get("echo").unwrap().digest, first.digest);
    shelf.put("echo.wasm.minisig", b"hello");
    let reason = shelf.expect_refused("echo.wasm", true);
    assert!(reason.contains("cannot be read"), "{reason}");

    shelf.put("echo.wasm.minisig", &sign(&pair, &version(2)));
    assert_ne!(shelf.expect_replaced("echo").digest, first.digest);
}

#[test]
fn without_trusted_keys_signatures_are_not_looked_at() {
    let shelf = Shelf::empty().settled();
    shelf.put("echo.wasm.minisig", b"hello");
    shelf.put("echo.wasm", &version(1));
    assert_eq!(shelf.expect_added("echo").signed, None);
}

#[test]
fn the_program_takes_keys_by_text_and_by_file() {
    let pair = key_pair();
    let place = Place::new();
    place.plugin("echo", "").file("release.pub", public(&pair));
    let line = public(&pair).lines().nth(1).unwrap().to_owned();
    for keys in ["release.pub", &line] {
        place.file("scutwork.toml", format!("[trust]\nkeys = [\"{keys}\"]\n"));
        place
            .run(&["run", "echo", "hi"])
            .exits(1)
            .says(&["not signed"]);
        place
            .run(&["plugin", "list"])
            .exits(1)
            .says(&["not signed"]);
        let signature = place.file("plugins/echo.wasm.minisig", sign(&pair, embedded::echo()));
        place.run(&["run", "echo", "hi"]).exits(0);
        let listed = place.run(&["plugin", "list", "-o", "json"]).exits(0);
        assert!(listed.text().contains("release 7"), "{}", listed.text());
        std::fs::remove_file(signature).unwrap();
    }
    for (keys, code, reason) in [
        ("[]", 78, "names no key"),
        ("[\"RWnothing\"]", 78, "not a whole minisign public key"),
        ("[\"scutwork.toml\"]", 78, "holds no minisign public key"),
        ("[\"gone.pub\"]", 66, "gone.pub"),
    ] {
        place.file("scutwork.toml", format!("[trust]\nkeys = {keys}\n"));
        place.run(&["plugin", "list"]).exits(code).says(&[reason]);
    }
}

#[test]
fn inspect_tells_who_signed_a_plugin_and_whether_that_counts() {
    let (pair, other) = (key_pair(), key_pair());
    let place = Place::new();
    let signature = |expected: &[&str]| {
        let inspect = ["plugin", "inspect", "plugins/echo.wasm"];
        let said = place.run(&inspect).text();
        let line = said
            .lines()
            .find(|line| line.starts_with("signature"))
            .unwrap();
        for part in expected {
            assert!(line.contains(part), "no {part:?} in {line}");
        }
        let json = place.run(&[&inspect[..], &["-o", "json"]].concat());
        let json: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
        json["signature"].clone()
    };
    let trust = |pair: &KeyPair| {
        place.file("key.pub", public(pair));
        place.file("scutwork.toml", "[trust]\nkeys = [\"key.pub\"]\n");
    };
    place.plugin("echo", "");
    assert_eq!(signature(&["none"])["standing"], "missing");

    place.file("plugins/echo.wasm.minisig", sign(&pair, embedded::echo()));
    let key = public(&pair).lines().next().unwrap().to_owned();
    let key = key.rsplit(' ').next().unwrap();
    let told = signature(&[key, "no trust.keys"]);
    assert_eq!(
        (&told["standing"], &told["key"]),
        (&"unchecked".into(), &key.into())
    );

    trust(&pair);
    let told = signature(&[key, "is trusted", "release 7"]);
    assert_eq!(
        (&told["standing"], &told["comment"]),
        (&"trusted".into(), &"release 7".into())
    );

    trust(&other);
    assert_eq!(
        signature(&[key, "not among trust.keys"])["standing"],
        "untrusted"
    );

    trust(&pair);
    place.file("plugins/echo.wasm.minisig", sign(&pair, embedded::dots()));
    assert_eq!(signature(&[key, "wrong"])["standing"], "wrong");
    place.file("plugins/echo.wasm.minisig", "hello");
    assert_eq!(signature(&["none of minisign's"])["standing"], "unreadable");
}
