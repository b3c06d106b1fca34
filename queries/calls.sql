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
  step LONG,
  -- 1 if no other of the calls is around it under the scope, else 0: these add up.
  is_outermost LONG
)
AS
WITH
  called AS MATERIALIZED (
    SELECT id, ts, dur, name, track_id, scope_id
    FROM _traceq_below!($under)
    WHERE
      +name IN (SELECT value FROM json_each($match)) AND category IS NOT 'gpu_user_annotation'
  ),
  looked_back AS (
    SELECT
      *,
      MAX(ts + MAX(dur, 1)) OVER (
        PARTITION BY track_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ) AS ended
    FROM called
  ),
  adopted AS MATERIALIZED (
    SELECT DISTINCT m.id
    FROM _traceq_adopted_members m
    JOIN called c ON c.id = m.id
    JOIN _traceq_adopted_ancestors up ON up.root_id = m.root_id
    JOIN called around ON around.id = up.ancestor_id
  )
SELECT
  b.id,
  b.ts,
  b.dur,
  b.name,
  COALESCE(n.op, b.name) AS op,
  b.track_id,
  b.scope_id,
  s.name AS scope,
  (SELECT MIN(p.step) FROM traceq_steps p WHERE b.ts >= p.ts AND b.ts < p.ts + p.dur) AS step,
  (b.ended IS NULL OR b.ended <= b.ts) AND b.id NOT IN (SELECT id FROM adopted) AS is_outermost
FROM looked_back b
LEFT JOIN traceq_op_names n ON n.name = b.name
LEFT JOIN slice s ON s.id = b.scope_id
ORDER BY b.id;
