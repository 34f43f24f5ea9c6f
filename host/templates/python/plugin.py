"""Counts the lines, words and bytes of a text."""

from scutwork import Output, Reject, Retry, Task, log, progress


def handle(task: Task) -> Output:
    # Rejects what is no text. `task.json()` reads JSON in the same way.
    text = task.text()
    if text == "":
        # It can never work: a dead letter at once.
        raise Reject("empty", "there is nothing to count")
    if text == "busy" and task.attempt < 3:
        # It may work later: it runs again after a while, up to retry.max_attempts.
        raise Retry("busy", "pretends to be busy")
    if text == "crash":
        # A bug: the host ends it, and it counts as a retry.
        raise RuntimeError("asked to crash")
    counts = {
        "lines": len(text.splitlines()),
        "words": len(text.split()),
        "bytes": len(task.payload),
    }
    log("info", "counted", words=counts["words"])
    progress(1, 1, "counted")
    return Output.json(counts)
