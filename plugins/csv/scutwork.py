"""Maps a plain function to the contract: it takes a Task and returns an Output, or raises Retry or Reject.

Any other exception is a bug: the host ends the plugin, shows the traceback, and it counts as a retry.
Without a host, as in tests, `log` and `progress` print and all else is plain Python.
"""

import json as _json
import sys as _sys
from dataclasses import dataclass, field


class Retry(Exception):
    """It may work later. `delay_ms` asks for a wait in place of the manifest's backoff."""

    def __init__(self, code, message, delay_ms=None):
        super().__init__(message)
        self.code, self.message, self.delay_ms = code, message, delay_ms


class Reject(Exception):
    """It can never work."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message


@dataclass
class Task:
    """One piece of work, as this attempt sees it."""

    payload: bytes = b""
    headers: dict = field(default_factory=dict)
    content_type: str | None = None
    id: str = "test"
    plugin: str = "test"
    attempt: int = 1
    max_attempts: int = 5
    timeout_ms: int = 300_000

    def text(self):
        """The payload as text; rejects the task as `not-text`."""
        try:
            return self.payload.decode()
        except UnicodeDecodeError as error:
            raise Reject("not-text", f"the payload is no text: {error}") from error

    def json(self):
        """The payload as JSON; rejects the task as `bad-json`."""
        try:
            return _json.loads(self.payload)
        except ValueError as error:
            raise Reject("bad-json", f"the payload is wrong: {error}") from error


@dataclass
class Output:
    """The result."""

    body: bytes = b""
    content_type: str | None = None

    @staticmethod
    def text(text):
        """A text."""
        return Output(text.encode(), "text/plain")

    @staticmethod
    def json(value):
        """Anything that JSON can say."""
        return Output(_json.dumps(value).encode(), "application/json")


def log(level, message, **fields):
    """Writes a line to the host's log. The level is trace, debug, info, warn or error."""
    try:
        from wit_world.imports import log as host
    except ImportError:
        print(f"{level}: {message} {fields}", file=_sys.stderr)
        return
    named = [(name, str(value)) for name, value in fields.items()]
    host.write(host.Level[level.upper()], message, named)


def progress(done, total, message=""):
    """Says how far the task is, for people who watch."""
    try:
        from wit_world.imports import control
    except ImportError:
        print(f"{done}/{total} {message}", file=_sys.stderr)
        return
    control.progress(done, total, message)


def handler(handle):
    """The class that the component exports, around a function from a task to an output."""
    from componentize_py_types import Err
    from wit_world import exports
    from wit_world.imports import task_types

    class Handler(exports.Handler):
        def handle(self, task):
            try:
                output = handle(
                    Task(
                        payload=task.payload,
                        headers=dict(task.headers),
                        content_type=task.content_type,
                        id=task.id,
                        plugin=task.plugin,
                        attempt=task.attempt,
                        max_attempts=task.max_attempts,
                        timeout_ms=task.timeout_ms,
                    )
                )
            except Retry as failure:
                reason = task_types.RetryReason(failure.code, failure.message, failure.delay_ms)
                raise Err(task_types.Failure_Retry(reason)) from failure
            except Reject as failure:
                reason = task_types.RejectReason(failure.code, failure.message)
                raise Err(task_types.Failure_Reject(reason)) from failure
            return task_types.Output(output.content_type, output.body)

    return Handler
