INCLUDE PERFETTO MODULE traceq.op_names;
INCLUDE PERFETTO MODULE traceq.steps;
INCLUDE PERFETTO MODULE traceq.under;

-- Every call of some ops, with the scope and the step that it belongs to.
CREATE OR REPLACE PERFETTO FUNCTION traceq_calls(
  -- JSON array of the calls' names, as traceq_names() gives it.
  match STRING,
  -- JSON array of the scopes' names; NULL for the whole trace.
  under STRING
)
RETURNS TABLE(
  -- Id of the call's slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- (ns) Duration.
  dur LONG,
  -- Name as it stands in the trace.
  name STRING,
  -- Name of the op, folded.
  op STRING,
  -- Track (track.id).
  track_id LONG,
  -- Scope (slice.id) that it is under; NULL for the whole trace.
  scope_id LONG,
  -- Name of that scope.
  scope STRING,
  -- Number of the profiler's step during which it started; NULL outside of all steps.
  step LONG
)
AS
SELECT
  b.id,
  b.ts,
  b.dur,
  b.name,
  n.op,
  b.track_id,
  b.scope_id,
  s.name AS scope,
  (SELECT MIN(p.step) FROM traceq_steps p WHERE b.ts >= p.ts AND b.ts < p.ts + p.dur) AS step
FROM traceq_under($under) b
JOIN traceq_op_names n ON n.name = b.name
LEFT JOIN slice s ON s.id = b.scope_id
WHERE +b.name IN (SELECT value FROM json_each($match))
ORDER BY b.id;
