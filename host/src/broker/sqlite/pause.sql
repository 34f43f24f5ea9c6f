-- Version 2. A queue that is paused is not claimed from.

ALTER TABLE queue ADD COLUMN paused INTEGER NOT NULL DEFAULT 0;
