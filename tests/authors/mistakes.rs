//! Each mistake that newcomers make is told in words that they can act on.

use crate::support::program::Place;
use crate::support::wat;

/// What `plugin check` says of a file that would not serve.
fn problem(wasm: &[u8]) -> String {
    let place = Place::new();
    place.file("thumb.wasm", wasm);
    place
        .run(&["plugin", "check", "thumb.wasm"])
        .exits(1)
        .text()
}

fn problem_of_module(text: &str) -> String {
    problem(&::wat::parse_str(text).unwrap())
}

#[test]
fn a_file_that_would_not_serve_is_told_why_and_what_to_do() {
    let run = "(func (export \"run\"))";
    let mistakes: [(String, &[&str]); 6] = [
        (
            problem(b"<html>not found</html>"),
            &["not WebAssembly", "web page"],
        ),
        // Built for wasm32-unknown-unknown, or a reactor of wasip1.
        (
            problem_of_module(&format!("(module {run})")),
            &["no command", "wasm32-wasip2", "_start"],
        ),
        (
            problem_of_module("(module (func (export \"scutwork:task/handler@0.1.0#handle\")))"),
            &["without the component around it", "scutwork plugin build"],
        ),
        (
            problem_of_module(
                "(module (import \"__wbindgen_placeholder__\" \"f\" (func)) (func (export \"run\")))",
            ),
            &["wasm-bindgen", "wasm32-wasip2"],
        ),
        (
            problem(&wat::assembled("scutwork:task/handler@0.0.1", HANDLE)),
            &["another version of the contract", "scutwork:task@0.1.0"],
        ),
        (
            problem(&wat::assembled("a:b/c@0.1.0", HANDLE)),
            &["exports no `scutwork:task/handler@0.1.0`", "world `plugin`"],
        ),
    ];
    for (said, expected) in mistakes {
        for text in expected {
            assert!(said.contains(text), "no {text:?} in {said}");
        }
    }
}

const HANDLE: &str =
    "(memory (export \"memory\") 1) (func (export \"handle\") (type $handle) i32.const 256)";

#[test]
fn a_name_that_is_not_allowed_is_refused_with_what_is() {
    let place = Place::new();
    for name in ["../thumb", ".thumb", "a b"] {
        place
            .run(&["plugin", "new", name, "--lang", "rust"])
            .exits(2)
            .says(&["is not allowed", "letters, digits"]);
    }
}

#[test]
fn a_folder_that_is_there_is_left_alone() {
    let place = Place::new();
    place
        .run(&["plugin", "new", "plugins", "--lang", "c"])
        .exits(0);
    place
        .run(&["plugin", "new", "plugins", "--lang", "c"])
        .exits(2)
        .says(&["is there already", "another name"]);
}

#[test]
fn a_language_without_commands_says_so() {
    Place::new()
        .run(&["plugin", "new", "thumb", "--lang", "python", "--command"])
        .exits(2)
        .says(&["component alone", "leave --command out"]);
}

#[test]
fn a_folder_without_a_plugin_says_how_to_make_one() {
    Place::new()
        .run(&["plugin", "build"])
        .exits(66)
        .says(&["holds no plugin", "scutwork plugin new"]);
}

#[test]
fn a_toolchain_that_is_missing_is_named_with_how_to_get_it() {
    let missing = [
        ("rust", "https://rustup.rs"),
        ("python", "pip install -r requirements.txt"),
        ("js", "npm install"),
        ("c", "apt-get install clang lld wasi-libc"),
        ("cpp", "libc++-dev-wasm32"),
        ("go", "https://go.dev/dl"),
        ("zig", "ziglang==0.15.2"),
        ("assemblyscript", "npm install"),
    ];
    for (language, how) in missing {
        let mut place = Place::new();
        place
            .run(&["plugin", "new", "thumb", "--lang", language])
            .exits(0);
        place.set("PATH", place.path().join("plugins"));
        place
            .run(&["plugin", "build", "thumb"])
            .exits(1)
            .says(&["is missing", how]);
    }
}

#[test]
fn a_capability_that_is_not_granted_is_told_with_the_lines_to_add() {
    let place = Place::new();
    place.file("nosy.wasm", scutwork::plugin::embedded::nosy());
    place
        .run(&["plugin", "check", "nosy.wasm"])
        .exits(0)
        .says(&[
            "HTTP requests are linked in and not granted",
            "write in nosy.toml: [http] allow = [\"https://api.example.com\"]",
            "no plugin is granted",
        ]);
}

#[test]
fn more_memory_at_the_start_than_the_limit_is_a_problem() {
    let place = Place::new();
    place.file("echo.wasm", scutwork::plugin::embedded::echo());
    place.file("echo.toml", "[limits]\nmemory = \"64KiB\"\n");
    let said = place.run(&["plugin", "check", "echo.wasm"]).exits(1).text();
    assert!(said.contains("raise limits.memory in echo.toml"), "{said}");
}
