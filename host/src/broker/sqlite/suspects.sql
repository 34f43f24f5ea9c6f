-- Version 3. Suspects are found without walking over all that waits.

CREATE INDEX suspect ON waiting (queue, due) WHERE on_trial;
