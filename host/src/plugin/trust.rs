//! [`Trust`]: whose signature a plugin must bear, and whether it does. Signatures are those of
//! minisign.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use minisign_verify::{Error, PublicKey, Signature};

/// Whose plugins are loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Anybody's: the sandbox holds them all the same.
    #[default]
    Anyone,
    /// Those that one of these keys signed.
    Keys(Vec<TrustedKey>),
}

/// A minisign public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    key: PublicKey,
    id: KeyId,
}

/// Tells keys apart, as minisign shows it: `58D6A9D9D37F0C2B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct KeyId(u64);

/// Who signed a plugin, and what they said with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Signed {
    /// The key's id.
    pub key: String,
    /// The trusted comment: signed with the plugin, so as true as the plugin itself.
    pub comment: String,
}

/// What there is of a signature, whether or not anybody asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seal {
    /// There is none.
    Missing,
    /// There is a file, and it is none of minisign's.
    Unreadable,
    /// By this key, and nobody has said whose signature counts.
    Unasked(String),
    /// By a trusted key.
    Trusted(Signed),
    /// By this key, which is not trusted.
    Stranger(String),
    /// By this key, and for other bytes than these.
    Wrong(String),
}

/// Why a plugin is not trusted, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Untrusted {
    #[error(
        "it is not signed, and trust.keys in scutwork.toml asks for that; sign it with `minisign -Sm {plugin}.wasm`, and put {plugin}.wasm.minisig beside it"
    )]
    Unsigned { plugin: String },
    #[error("its signature cannot be read: it is none of minisign's")]
    Unreadable,
    #[error(
        "it is signed by key {id}, which is not among trust.keys in scutwork.toml; add that key if it is to be trusted"
    )]
    Stranger { id: String },
    #[error(
        "its signature by key {id} is wrong: the plugin, the signature or its comment was changed since it was made; sign it again, or copy both again"
    )]
    Wrong { id: String },
}

impl TrustedKey {
    /// Reads a public key: the one line that begins with `RW`, or the text of a `minisign.pub` file.
    ///
    /// None: it is none.
    pub fn parse(text: &str) -> Option<TrustedKey> {
        let line = text
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty() && !line.starts_with("untrusted comment:"))?;
        Some(TrustedKey {
            key: PublicKey::from_base64(line).ok()?,
            id: KeyId::within(line)?,
        })
    }
}

impl Trust {
    /// Checks that a trusted key signed these bytes. None: nobody asked for a signature.
    pub(super) fn check(
        &self,
        plugin: &str,
        wasm: &[u8],
        signature: Option<&[u8]>,
    ) -> Result<Option<Signed>, Untrusted> {
        let keys = match self {
            Trust::Anyone => return Ok(None),
            Trust::Keys(keys) => keys,
        };
        let Some(text) = signature else {
            return Err(Untrusted::Unsigned {
                plugin: plugin.to_owned(),
            });
        };
        let text = std::str::from_utf8(text).map_err(|_| Untrusted::Unreadable)?;
        let id = text
            .lines()
            .nth(1)
            .and_then(KeyId::within)
            .ok_or(Untrusted::Unreadable)?;
        let signature = Signature::decode(text).map_err(|_| Untrusted::Unreadable)?;
        let mut refused = Untrusted::Stranger { id: id.to_string() };
        for trusted in keys {
            // Both of minisign's ways are as strong; the older signs the bytes, the newer their hash.
            match trusted.key.verify(wasm, &signature, true) {
                Ok(()) => {
                    return Ok(Some(Signed {
                        key: trusted.id.to_string(),
                        comment: signature.trusted_comment().to_owned(),
                    }));
                }
                Err(Error::UnexpectedKeyId) => {}
                // Another key may have the same id.
                Err(_) => refused = Untrusted::Wrong { id: id.to_string() },
            }
        }
        Err(refused)
    }
}

impl Seal {
    /// Looks at a plugin's signature.
    pub fn of(trust: &Trust, wasm: &[u8], signature: Option<&[u8]>) -> Seal {
        match trust.check("", wasm, signature) {
            Ok(Some(signed)) => Seal::Trusted(signed),
            Ok(None) => match signature {
                None => Seal::Missing,
                Some(text) => signer(text).map_or(Seal::Unreadable, Seal::Unasked),
            },
            Err(Untrusted::Unsigned { .. }) => Seal::Missing,
            Err(Untrusted::Unreadable) => Seal::Unreadable,
            Err(Untrusted::Stranger { id }) => Seal::Stranger(id),
            Err(Untrusted::Wrong { id }) => Seal::Wrong(id),
        }
    }
}

/// Who says to have signed, if it is a signature at all.
fn signer(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    Signature::decode(text).ok()?;
    let id = text.lines().nth(1).and_then(KeyId::within)?;
    Some(id.to_string())
}

impl KeyId {
    /// A key and a signature begin alike: two bytes for the algorithm, eight for the key's id.
    fn within(line: &str) -> Option<KeyId> {
        let bytes = BASE64_STANDARD.decode(line.trim()).ok()?;
        let id = bytes.get(2..10)?.try_into().ok()?;
        Some(KeyId(u64::from_le_bytes(id)))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016X}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by minisign 0.11, with -l: over the bytes `legacy`.
    const KEY: &str = "untrusted comment: minisign public key 4BFDA0BC4BA0675B
RWRbZ6BLvKD9SwLxfoTEYqHkLbkHy3SYMUqjSVBoqGY3LmwL546bkPEO
";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key
RWRbZ6BLvKD9S/HiUj5G2VroRS1+pQ5aT5Zofn0uyS03jmxUlIQa1TDKx01qfUM30nIjm4znhygr9ORRsU1wR4Pwz8fagQXcgQA=
trusted comment: file:f.wasm, version 1
4+DzrPpa6MLhYxZmuBCsKQFzmmWMXdXNOUdrjG8LLTeBNMKwd6UQlA5f8RhPyh8GUCc2XH7q6HJ0dtclypENAg==
";
    /// Another's, from minisign's documentation.
    const STRANGER: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn check(keys: &[&str], wasm: &[u8], signature: &str) -> Result<Option<Signed>, String> {
        let keys = keys.iter().map(|key| TrustedKey::parse(key).unwrap());
        Trust::Keys(keys.collect())
            .check("f", wasm, Some(signature.as_bytes()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_signature_of_the_older_kind_counts_and_tells_its_comment() {
        let signed = check(&[STRANGER, KEY], b"legacy", SIGNATURE);
        assert_eq!(
            signed,
            Ok(Some(Signed {
                key: "4BFDA0BC4BA0675B".to_owned(),
                comment: "file:f.wasm, version 1".to_owned(),
            }))
        );
    }

    #[test]
    fn what_is_not_signed_so_is_refused_with_the_key_and_the_way_out() {
        let forged = SIGNATURE.replace("version 1", "version 2");
        for (keys, wasm, signature, reason) in [
            (
                &[KEY],
                b"legacy",
                forged.as_str(),
                "by key 4BFDA0BC4BA0675B is wrong",
            ),
            (
                &[KEY],
                b"lEgacy",
                SIGNATURE,
                "by key 4BFDA0BC4BA0675B is wrong",
            ),
            (
                &[STRANGER],
                b"legacy",
                SIGNATURE,
                "4BFDA0BC4BA0675B, which is not among trust.keys",
            ),
            (&[KEY], b"legacy", "", "cannot be read"),
            (&[KEY], b"legacy", "a\nb\nc\nd\n", "cannot be read"),
            (&[KEY], b"legacy", KEY, "cannot be read"),
        ] {
            let error = check(keys, wasm, signature).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_key_is_its_line_or_its_file_and_nothing_else() {
        let line = KEY.lines().nth(1).unwrap();
        assert_eq!(TrustedKey::parse(KEY), TrustedKey::parse(line));
        for text in [
            "",
            "RW",
            "untrusted comment: x\n",
            &SIGNATURE[54..154],
            &line[2..],
        ] {
            assert_eq!(TrustedKey::parse(text), None, "{text:?}");
        }
    }
}
