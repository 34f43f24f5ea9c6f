-- Version 3. The queue's own time, by which delays end whatever becomes of the wall clock.

CREATE TABLE clock (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    boot TEXT NOT NULL,                         -- the run of the machine that `base` is for
    base INTEGER NOT NULL,                      -- the queue's time when that began
    skew INTEGER NOT NULL,                      -- how far the wall clock was ahead of the queue's
    seen INTEGER NOT NULL                       -- a queue's time that is past
) STRICT;
