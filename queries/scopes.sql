INCLUDE PERFETTO MODULE traceq.adopted;
INCLUDE PERFETTO MODULE traceq.names;

-- The scopes of a pattern: slices with one of the names that have none of the names above them.
-- Nested matches are thus counted once. What runs on the GPU is never a scope.
CREATE OR REPLACE PERFETTO FUNCTION traceq_scopes(
  -- JSON array of slice names, as traceq_names() gives it.
  names STRING
)
RETURNS TABLE(
  -- Id of the scope's slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- (ns) Duration.
  dur LONG,
  -- Name as it stands in the trace.
  name STRING,
  -- Track (track.id) of the scope's thread.
  track_id LONG,
  -- (ns) Duration less that of its direct children on the same lane.
  self LONG
)
AS
WITH
  matched AS MATERIALIZED (
    SELECT id, ts, dur, name, track_id
    FROM slice
    WHERE
      name IN (SELECT value FROM json_each($names))
      -- The GPU's copy of a label is not a scope of its own, nor is a kernel named like one.
      AND COALESCE(category, '') NOT IN
        ('gpu_user_annotation', 'kernel', 'gpu_memcpy', 'gpu_memset')
  ),
  -- On one lane slices are either nested or apart, so one look at what came before tells. Those
  -- without length hold others of the same time, as in the engine.
  outermost AS MATERIALIZED (
    SELECT id, ts, dur, name, track_id
    FROM (
      SELECT
        *,
        MAX(ts + MAX(dur, 1)) OVER (
          PARTITION BY track_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS ended
      FROM matched
    )
    WHERE ended IS NULL OR ended <= ts
  )
SELECT
  id, ts, dur, name, track_id,
  dur - COALESCE((SELECT SUM(c.dur) FROM slice c WHERE c.parent_id = outermost.id), 0) AS self
FROM outermost
WHERE
  -- Where a lane hangs below a slice on another lane, what is around that one counts as well.
  id NOT IN (
    SELECT m.id
    FROM _traceq_adopted_members m
    JOIN _traceq_adopted_ancestors up ON up.root_id = m.root_id
    JOIN matched around ON around.id = up.ancestor_id
  );
