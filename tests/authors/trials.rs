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
