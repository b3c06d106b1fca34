-- The history's tables, version 1. Times are integer nanoseconds. Lists by step have one entry for
-- each step that has scopes, and a last one for what is in no step; their sum is the total.

CREATE TABLE schema_versions (version INTEGER NOT NULL);
COMMENT ON TABLE schema_versions IS 'The versions that this file has been brought to, one row each.';

CREATE TABLE runs (
  run VARCHAR PRIMARY KEY,
  recorded TIMESTAMP NOT NULL,
  traceq VARCHAR NOT NULL
);
COMMENT ON TABLE runs IS 'What was recorded at once: one capture or several of the same code.';
COMMENT ON COLUMN runs.recorded IS 'When its first capture was made, by its record; else when it was put in here; UTC.';
COMMENT ON COLUMN runs.traceq IS 'Version that recorded it.';

CREATE TABLE labels (
  run VARCHAR NOT NULL,
  key VARCHAR NOT NULL,
  value VARCHAR NOT NULL,
  PRIMARY KEY (run, key)
);
COMMENT ON TABLE labels IS 'What is known of a run: commit, branch, gpu, torch, and what --label gave.';

CREATE TABLE captures (
  capture VARCHAR PRIMARY KEY,
  run VARCHAR NOT NULL,
  place INTEGER NOT NULL,
  path VARCHAR NOT NULL,
  sha256 VARCHAR,
  under VARCHAR[] NOT NULL,
  within VARCHAR NOT NULL,
  steps INTEGER NOT NULL,
  scopes BIGINT NOT NULL,
  cpu BIGINT NOT NULL,
  gpu BIGINT NOT NULL,
  activities BIGINT NOT NULL,
  packed BLOB NOT NULL
);
COMMENT ON TABLE captures IS 'One capture of a run, as it was read under some scopes.';
COMMENT ON COLUMN captures.capture IS 'Hash of the file, the scopes and the limits of time: the same work is never in here twice.';
COMMENT ON COLUMN captures.under IS 'Patterns of the scopes; empty: the whole trace.';
COMMENT ON COLUMN captures.within IS 'Limits of time as JSON: steps, skip_first, window.';
COMMENT ON COLUMN captures.packed IS 'Every call and kernel of the scopes, in the form of traceq.history.pack.';

CREATE TABLE ops (
  capture VARCHAR NOT NULL,
  op VARCHAR NOT NULL,
  category VARCHAR,
  calls BIGINT NOT NULL,
  total BIGINT NOT NULL,
  self BIGINT NOT NULL,
  min BIGINT,
  max BIGINT,
  gpu_total BIGINT NOT NULL,
  calls_by_step BIGINT[] NOT NULL,
  total_by_step BIGINT[] NOT NULL
);
COMMENT ON TABLE ops IS 'The ops of each capture, as traceq ops --under shows them.';

CREATE TABLE kernels (
  capture VARCHAR NOT NULL,
  kernel VARCHAR NOT NULL,
  category VARCHAR,
  calls BIGINT NOT NULL,
  total BIGINT NOT NULL,
  min BIGINT,
  max BIGINT,
  calls_by_step BIGINT[] NOT NULL,
  total_by_step BIGINT[] NOT NULL
);
COMMENT ON TABLE kernels IS 'The kernels, copies and sets of each capture, as traceq kernels --under shows them.';

CREATE TABLE scopes (
  capture VARCHAR NOT NULL,
  scope VARCHAR NOT NULL,
  calls BIGINT NOT NULL,
  total BIGINT NOT NULL,
  gpu BIGINT NOT NULL,
  calls_by_step BIGINT[] NOT NULL,
  total_by_step BIGINT[] NOT NULL,
  gpu_by_step BIGINT[] NOT NULL
);
COMMENT ON TABLE scopes IS 'The scopes of each capture by name (of a module: by instance), with the GPU time of what they launched.';
