//! What is no plugin, and what no plugin reaches.

use super::*;

#[tokio::test]
async fn nothing_is_reached_that_nobody_granted() {
    let sandbox = sandbox(1);
    let nosy = sandbox.prepare(embedded::nosy()).unwrap();
    let (notes, task) = (Notes::default(), task("nosy", ""));
    let mut random = Vec::new();
    for _ in 0..2 {
        let finished = sandbox
            .run(job(&nosy, &task), &notes.observers(), &Cancel::new())
            .await;
        let body = done(finished.outcome).body;
        let report = std::str::from_utf8(&body).unwrap();
        let (denied, number) = report.split_once("randomness: ").unwrap();
        assert_eq!(
            denied,
            "environment: 0\narguments: 0\nfiles: denied\ndirectory: denied\ntcp: denied\n\
             udp: denied\nnames: denied\nhttp: denied\nclock: true\n"
        );
        random.push(number.to_owned());
    }
    assert_ne!(random[0], random[1]);
    let refused = "Warn request to https://localhost refused: it is not granted; to grant it, \
                   write in nosy.toml: [http] allow = [\"https://localhost\"] []";
    assert_eq!(notes.taken(), [refused, refused]);
}

#[test]
fn a_file_that_is_no_plugin_is_refused_in_plain_words() {
    let sandbox = sandbox(1);
    let dots = embedded::dots();
    let other_version = wat::assembled("scutwork:task/handler@0.9.0", FITTING);
    let other_world = wat::assembled("acme:jobs/worker@1.0.0", FITTING);
    let stranger = wat::stranger();
    let five_memories = wat::plugin(
        r#"(memory (export "memory") 1) (memory 1) (memory 1) (memory 1) (memory 1)
        (func (export "handle") (type $handle) (i32.const 256))"#,
    );
    let table: [(&str, &[u8], &[&str]); 13] = [
        ("nothing", b"", &["empty"]),
        ("text", b"hello", &["not WebAssembly"]),
        ("a web page", b"<!doctype html>", &["web page"]),
        ("text form", b"(component)", &["as text"]),
        ("three bytes", b"\0as", &["cut short"]),
        ("half a plugin", &dots[..dots.len() / 2], &["cut short"]),
        (
            "native code",
            b"\x7fELF\x02\x01\x01",
            &["precompiled", ".wasm"],
        ),
        (
            "a core module",
            b"\0asm\x01\0\0\0",
            &["core module", "wasm32-wasip2"],
        ),
        (
            "nonsense inside",
            b"\0asm\x0d\0\x01\0\xff\xff\xff\xff\x0f",
            &["valid"],
        ),
        (
            "another version",
            &other_version,
            &["@0.1.0", "@0.9.0", "another version"],
        ),
        (
            "another world",
            &other_world,
            &["exports no `scutwork:task/handler@0.1.0`"],
        ),
        (
            "an import nobody has",
            &stranger,
            &["acme:secret/door@1.0.0", "does not provide"],
        ),
        ("five memories", &five_memories, &["more than", "5", "4"]),
    ];
    for (what, wasm, words) in table {
        let error: PrepareError = sandbox.prepare(wasm).unwrap_err();
        let message = error.to_string();
        for word in words {
            assert!(message.contains(word), "{what}: {message}");
        }
        assert!(message.len() < 400, "{what}: {message}");
    }
}
