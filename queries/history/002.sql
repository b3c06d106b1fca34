-- Version 2: two facts of time instead of one that was either, and what tells captures apart. The
-- new columns of captures are filled from what is packed.

ALTER TABLE captures ADD COLUMN captured TIMESTAMP;
ALTER TABLE captures ADD COLUMN content VARCHAR;
ALTER TABLE captures ADD COLUMN workload VARCHAR;
COMMENT ON COLUMN captures.captured IS 'When it was made, by its record (UTC); NULL: it does not tell.';
COMMENT ON COLUMN captures.content IS 'Hash of all its names and times, else of the file, else its path: copies of one capture share it.';
COMMENT ON COLUMN captures.workload IS 'What of its work must be equal for times to compare, as JSON: steps, number of scopes, shapes of inputs, sizes and classes of the model, as far as they are told.';
COMMENT ON COLUMN captures.capture IS 'Hash of the content (of version 1: of the file), the scopes and the limits of time: the same work is never in here twice.';

ALTER TABLE runs ALTER COLUMN recorded DROP NOT NULL;
COMMENT ON COLUMN runs.recorded IS 'When it was put in here (UTC); NULL: by version 1, which kept the time of capture instead.';
