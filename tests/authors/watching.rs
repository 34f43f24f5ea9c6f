//! `plugin build --watch`: every change is built, and tried on a payload.

use super::place;

#[test]
fn a_change_is_built_and_run_again_and_a_mistake_ends_nothing() {
    let place = place();
    place
        .run(&["plugin", "new", "words", "--lang", "rust", "--command"])
        .exits(0);
    let source = place.path().join("words/src/main.rs");
    let begun = std::fs::read_to_string(&source).unwrap();
    let with = |text: &str| {
        std::fs::write(&source, begun.replace("there is nothing to count", text)).unwrap()
    };

    let mut watching = place.start(&["plugin", "build", "words", "--watch", ""]);
    watching.wait_for("rejects the task: exit-65: there is nothing to count");
    watching.wait_for("waiting for a change");

    with("not a word");
    watching.wait_for("rejects the task: exit-65: not a word");
    watching.wait_for("waiting for a change");

    with("a quote \" too many");
    watching.wait_for("cargo failed");
    watching.wait_for("waiting for a change");

    with("no word at all");
    watching.wait_for("rejects the task: exit-65: no word at all");
    watching.wait_for("waiting for a change");
}

#[test]
fn without_a_payload_a_change_is_only_built() {
    let place = place();
    place
        .run(&["plugin", "new", "words", "--lang", "rust", "--command"])
        .exits(0);
    let mut watching = place.start(&["plugin", "build", "words", "--watch", "--out", "plugins"]);
    watching.wait_for("built in");
    let after = watching.wait_for("waiting for a change");
    assert!(after.contains("Ctrl-C"), "{after}");
    assert!(place.path().join("plugins/words.wasm").is_file());
}
