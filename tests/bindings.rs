//! The contract in Rust and in C lies in the tree, so that who writes a plugin need build no generator first. It is
//! what wit-bindgen writes of `wit/task.wit`, to the letter. With `SCUTWORK_BINDINGS=write` it is written anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use wit_bindgen_core::wit_parser::Resolve;
use wit_bindgen_core::{Files, WorldGenerator};

const WORLD: &str = "plugin";

#[test]
fn the_library_for_rust_has_the_contract_of_now() {
    let options = wit_bindgen_rust::Opts {
        format: true,
        // So that the macro that a plugin is exported by reaches it.
        pub_export_macro: true,
        additional_derive_attributes: vec!["PartialEq".to_owned()],
        ..wit_bindgen_rust::Opts::default()
    };
    let files = generate(&mut options.build());
    assert_eq!(files.keys().collect::<Vec<_>>(), ["plugin.rs"]);
    in_tree("plugins/sdk/src/bindings.rs", &files["plugin.rs"]);
}

#[test]
fn the_template_for_c_has_the_contract_of_now() {
    let files = generate(&mut *wit_bindgen_c::Opts::default().build());
    for name in ["plugin.c", "plugin.h"] {
        in_tree(&format!("host/templates/bindings/{name}"), &files[name]);
    }
}

fn generate(generator: &mut dyn WorldGenerator) -> BTreeMap<String, String> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(top().join("wit")).unwrap();
    let world = resolve.select_world(&[package], Some(WORLD)).unwrap();
    let mut files = Files::default();
    generator.generate(&mut resolve, world, &mut files).unwrap();
    // What is no text is for a linker, which no plugin's author needs.
    let texts = files.iter().filter_map(|(name, bytes)| {
        let text = str::from_utf8(bytes).ok()?;
        Some((name.to_owned(), text.to_owned()))
    });
    texts.collect()
}

fn in_tree(path: &str, generated: &str) {
    let file = top().join(path);
    if std::env::var("SCUTWORK_BINDINGS").is_ok_and(|word| word == "write") {
        fs::write(&file, generated).unwrap();
    }
    let there = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == generated,
        "{path} is not what wit-bindgen writes of wit/task.wit; SCUTWORK_BINDINGS=write has this test write it"
    );
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
