"""Turns CSV into JSON lines: an object a row, by the names in the first.

The payload is CSV in UTF-8, as spreadsheets write it: quoted cells may have commas, quotes and new lines
in them. A header `delimiter` names another sign than the comma, or `tab`. Cells stay text, and the output
is JSON lines in the order of the rows. What is no such table is rejected, with the line.
"""

import csv
import io
import json

from scutwork import Output, Reject, Task, log, progress

# So many rows between two words on how far it is.
STEP = 10_000


def handle(task: Task) -> Output:
    # Excel begins its UTF-8 with a byte order mark.
    text = task.text().removeprefix("\ufeff")
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter(task), strict=True)
    lines = []
    try:
        names = next(rows, [])
        check(names)
        for row in rows:
            if not row:
                continue
            if len(row) != len(names):
                raise Reject(
                    "ragged", f"line {rows.line_num} has {len(row)} cells, and the first row has {len(names)}"
                )
            lines.append(json.dumps(dict(zip(names, row)), ensure_ascii=False) + "\n")
            if len(lines) % STEP == 0:
                progress(rows.line_num, text.count("\n"), "rows")
    except csv.Error as error:
        raise Reject("bad-csv", f"line {rows.line_num}: {error}") from error
    log("info", "converted", rows=len(lines), columns=len(names))
    return Output("".join(lines).encode(), "application/x-ndjson")


def delimiter(task: Task) -> str:
    named = task.headers.get("delimiter", ",")
    sign = "\t" if named == "tab" else named
    if len(sign) != 1 or sign in '"\r\n ':
        raise Reject("bad-delimiter", f"the header delimiter is {named!r}, and may be one sign or `tab`")
    return sign


def check(names: list[str]) -> None:
    if not names:
        raise Reject("empty", "there is no first row with the names of the columns")
    for name in names:
        if names.count(name) > 1:
            raise Reject("same-name", f"two columns are called {name!r}")
