//! `scutwork run` as a workbench: other limits, many runs, and dead letters again.

use crate::support::program::Place;

#[test]
fn a_value_of_the_manifest_can_be_set_for_one_run() {
    let place = Place::new();
    place.plugin("endless", "[limits]\ncpu = \"1h\"\n");
    place
        .run(&["run", "endless", "--set", "limits.cpu=100ms"])
        .exits(1)
        .says(&["100ms", "limits.cpu"]);
    place
        .run(&["run", "endless", "--set", "limits.cpuu=100ms"])
        .exits(2)
        .says(&["--set", "did you mean limits.cpu?"]);
    place
        .run(&["run", "endless", "--set", "cpu"])
        .exits(2)
        .says(&["limits.memory=128MiB"]);
}

#[test]
fn many_runs_tell_how_long_they_took_and_give_one_output() {
    let place = Place::new();
    place.plugin("echo", "");
    let ended = place.run(&["run", "echo", "hi", "--repeat", "20"]).exits(0);
    assert_eq!(ended.text(), "hi");
    ended.says(&["20 runs: p50", "p99"]);
}

#[test]
fn of_many_runs_the_first_is_heard_and_programs_get_the_times() {
    let place = Place::new();
    place.file("nosy.wasm", scutwork::plugin::embedded::nosy());
    let run = |more: &[&str]| {
        let run = ["run", "./nosy.wasm", "get https://api.example.com/"];
        place.run(&[&run, more].concat()).exits(0)
    };
    let once = run(&["-o", "json"]);
    let often = run(&["-o", "json", "--repeat", "3"]);
    assert_eq!(often.stderr, once.stderr);
    assert!(often.stderr.contains("refused"), "{}", often.stderr);
    let [once, often] = [once, often]
        .map(|ended| serde_json::from_slice::<serde_json::Value>(&ended.stdout).unwrap());
    assert_eq!(often["times"]["runs"], 3);
    assert!(often["times"]["p50_ms"].as_f64() <= often["times"]["longest_ms"].as_f64());
    assert!(once["times"].is_null());
}

#[test]
fn runs_end_with_the_first_that_is_not_done() {
    let place = Place::new();
    place.plugin("picky", "");
    let run = [
        "run",
        "picky",
        "x",
        "--header",
        "code=sour",
        "--repeat",
        "3",
    ];
    place.run(&run).exits(1).says(&["1 of 3 runs: p50"]);
}

#[test]
fn progress_is_told_in_lines_where_there_is_no_terminal() {
    let place = Place::new();
    let told = place.run(&["run", "dots", "."]).exits(0).stderr;
    assert_eq!(told, "progress: 1/1 sleeping\n");
    assert_eq!(place.run(&["run", "dots", ".", "-q"]).exits(0).stderr, "");
}

#[test]
fn a_plugin_that_was_built_and_is_not_served_is_told_where_it_is() {
    let place = Place::new();
    std::fs::create_dir(place.path().join("echo")).unwrap();
    place.file("echo/echo.wasm", scutwork::plugin::embedded::echo());
    place
        .run(&["run", "echo", "x"])
        .exits(66)
        .says(&["no plugin `echo` in plugins", "run echo/echo.wasm"]);
    place.run(&["run", "echo/echo.wasm", "x"]).exits(0);
}

#[test]
fn a_dead_letter_runs_again_with_its_payload_and_headers_and_stays() {
    let place = Place::new();
    place.plugin("picky", "");
    let broker = "sqlite:queue.db";
    let worker = place.worker(broker, "tasks", &[]);
    let submit = [
        "submit",
        "picky",
        "too sour",
        "--header",
        "code=sour",
        "--id",
        "one",
        "--wait",
        "--broker",
        broker,
    ];
    place.run(&submit).exits(1);
    drop(worker);
    for _ in 0..2 {
        place
            .run(&["run", "--dead", "one", "--broker", broker])
            .exits(1)
            .says(&["rejects the task", "sour: too sour"]);
    }
    place
        .run(&["run", "--dead", "two", "--broker", broker])
        .exits(66)
        .says(&["no dead letter has the id two"]);
}
