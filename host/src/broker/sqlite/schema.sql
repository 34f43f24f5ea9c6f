-- Version 1. A message is written once; what changes while it waits and runs is in narrow rows beside it.

CREATE TABLE queue (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

-- What travels. Ids are never used again, so that a late settlement cannot meet another message.
CREATE TABLE message (
    id             INTEGER PRIMARY KEY AUTOINCREMENT,
    plugin         TEXT,
    task           TEXT,
    content_type   TEXT,
    headers        BLOB,                        -- length-prefixed names and values; NULL: none
    reply_to       TEXT,
    correlation_id TEXT,
    notify         INTEGER NOT NULL,
    priority       INTEGER,
    body           BLOB NOT NULL
) STRICT;

-- Its place in a queue, in the order of claims. Times are milliseconds since 1970.
CREATE TABLE waiting (
    queue        INTEGER NOT NULL,
    rank         INTEGER NOT NULL,              -- 255 less the priority
    due          INTEGER NOT NULL,
    id           INTEGER NOT NULL,
    crashes      INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    parked_since INTEGER,
    on_trial     INTEGER NOT NULL,
    PRIMARY KEY (queue, rank, due, id)
) STRICT, WITHOUT ROWID;

-- Or who holds it, with the place that it came from.
CREATE TABLE held (
    id           INTEGER PRIMARY KEY,
    owner        TEXT NOT NULL,
    queue        INTEGER NOT NULL,
    rank         INTEGER NOT NULL,
    due          INTEGER NOT NULL,
    crashes      INTEGER NOT NULL,
    attempt      INTEGER NOT NULL,
    parked_since INTEGER,
    on_trial     INTEGER NOT NULL
) STRICT;

-- Or why it died.
CREATE TABLE dead (
    id       INTEGER PRIMARY KEY,
    queue    INTEGER NOT NULL,
    reason   TEXT NOT NULL,
    code     TEXT,
    error    TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    plugin   TEXT,
    digest   TEXT,
    worker   TEXT NOT NULL,
    at       INTEGER NOT NULL
) STRICT;
CREATE INDEX dead_by_queue ON dead (queue);

CREATE TABLE reply (
    id             INTEGER PRIMARY KEY,
    address        TEXT NOT NULL,
    correlation_id TEXT,
    kind           TEXT NOT NULL,
    task           TEXT NOT NULL,
    attempt        INTEGER NOT NULL,
    content_type   TEXT,
    body           BLOB NOT NULL,
    at             INTEGER NOT NULL
) STRICT;
CREATE INDEX reply_by_address ON reply (address);
