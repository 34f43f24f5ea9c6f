//! Programs that nobody here wrote, unchanged, as plugins with only a manifest.

use std::path::PathBuf;
use std::sync::Arc;

use scutwork::event::Observers;
use scutwork::outcome::{Failure, Outcome};
use scutwork::plugin::Plugin;
use scutwork::sandbox::{Cancel, Job, Limits, Sandbox, SandboxSettings};
use scutwork::task::Task;
use tempfile::TempDir;

use crate::support::shelf;

/// A program with its manifest, compiled.
struct Program {
    _folder: TempDir,
    sandbox: Arc<Sandbox>,
    plugin: Arc<Plugin>,
}

impl Program {
    fn with(name: &str, manifest: &str) -> Program {
        let Some(programs) = std::env::var_os("SCUTWORK_TEST_PROGRAMS") else {
            panic!("NOT RUN: needs {name}.wasm in SCUTWORK_TEST_PROGRAMS; use tests/run");
        };
        let wasm = PathBuf::from(programs).join(format!("{name}.wasm"));
        assert!(wasm.is_file(), "NOT RUN: needs {}", wasm.display());
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(format!("{name}.wasm"));
        std::fs::copy(wasm, &path).unwrap();
        std::fs::write(path.with_extension("toml"), manifest).unwrap();
        let settings = SandboxSettings {
            slots: 1,
            ceiling: Limits::CEILING,
            threads: 1,
        };
        let sandbox = Arc::new(Sandbox::new(&settings).unwrap());
        let plugin = Plugin::from_file(&path, Arc::clone(&sandbox), &shelf::rules()).unwrap();
        Program {
            _folder: folder,
            sandbox,
            plugin,
        }
    }

    async fn outcome(&self, payload: &'static str) -> Outcome {
        let task = Task {
            id: "task-1".into(),
            plugin: self.plugin.name.clone(),
            payload: payload.into(),
            content_type: None,
            headers: vec![("name".into(), "world".into())],
            attempt: 1,
        };
        let job = Job {
            prepared: &self.plugin.prepared,
            task: &task,
            grants: &self.plugin.manifest.grants,
            limits: self.plugin.manifest.limits,
            max_attempts: 1,
        };
        self.sandbox
            .run(job, &Observers::default(), &Cancel::new())
            .await
            .outcome
    }

    async fn makes(&self, payload: &'static str, expected: &str) {
        match self.outcome(payload).await {
            Outcome::Done(output) => {
                assert_eq!(String::from_utf8_lossy(&output.body).trim(), expected);
            }
            other => panic!("{other:?}"),
        }
    }

    async fn rejects(&self, payload: &'static str, word: &str) {
        match self.outcome(payload).await {
            Outcome::Failed(Failure::Rejected { message, .. }) => {
                assert!(message.contains(word), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What the larger programs need.
const ROOM: &str = "[limits]\nmemory = \"512MiB\"\ncpu = \"5m\"\n";

#[tokio::test]
async fn esbuild_minifies_typescript() {
    let manifest = format!("{ROOM}[run]\nargs = [\"--loader=ts\", \"--minify\"]");
    let esbuild = Program::with("esbuild", &manifest);
    esbuild
        .makes(
            "export const answer: number = 6 * 7; // of course",
            "export const answer=42;",
        )
        .await;
    esbuild.rejects("const = ;", "Expected identifier").await;
}

#[tokio::test]
async fn python_runs_a_script() {
    let manifest = format!("{ROOM}[run]\nargs = [\"-c\", '''{SCRIPT}''']");
    let python = Program::with("python", &manifest);
    python.makes("[3, 4]", "world: 7").await;
    python.rejects("[3, ", "JSONDecodeError").await;
}

const SCRIPT: &str = r#"
import json, os, sys
print(os.environ["SCUTWORK_HEADER_NAME"] + ":", sum(json.load(sys.stdin)))
"#;

#[tokio::test]
async fn jaq_filters_json() {
    let jaq = Program::with("jaq", "[run]\nargs = [\"-c\", \".a\"]");
    jaq.makes(r#"{"a": [1, 2], "b": 3}"#, "[1,2]").await;
    jaq.rejects(r#"{"a": "#, "Error").await;
}

#[tokio::test]
async fn comrak_renders_markdown() {
    let comrak = Program::with("comrak", "[env]\nHOME = \"/\"");
    comrak
        .makes("# Hello\n\n*you*", "<h1>Hello</h1>\n<p><em>you</em></p>")
        .await;
    let misused = Program::with(
        "comrak",
        "[env]\nHOME = \"/\"\n[run]\nargs = [\"--no-such\"]",
    );
    misused.rejects("# Hello", "--no-such").await;
}
