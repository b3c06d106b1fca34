INCLUDE PERFETTO MODULE traceq.activities;
INCLUDE PERFETTO MODULE traceq.adopted;
INCLUDE PERFETTO MODULE traceq.backward;
INCLUDE PERFETTO MODULE traceq.scopes;

-- The calls that launched something, in order of time.
CREATE OR REPLACE PERFETTO TABLE _traceq_launching AS
SELECT s.id, s.ts, s.track_id
FROM (SELECT DISTINCT launch_id FROM _traceq_launched WHERE launch_id IS NOT NULL) a
JOIN slice s ON s.id = a.launch_id
ORDER BY s.ts;

-- Launches below a backward op, with the forward op that the innermost such op belongs to.
CREATE OR REPLACE PERFETTO TABLE _traceq_backward_launches AS
WITH
  innermost AS MATERIALIZED (
    SELECT l.id AS launch_id, MAX(b.id) AS backward_id
    FROM traceq_backward b
    CROSS JOIN slice s ON s.id = b.id
    CROSS JOIN _traceq_launching l
    WHERE
      l.ts >= s.ts AND (l.ts < s.ts + s.dur OR l.id = b.id)
      AND l.track_id = s.track_id AND l.id >= b.id
    GROUP BY l.id
  )
SELECT i.launch_id, b.forward_id, f.ts, f.track_id
FROM innermost i
CROSS JOIN traceq_backward b ON b.id = i.backward_id
CROSS JOIN slice f ON f.id = b.forward_id
ORDER BY f.ts;

-- GPU activities (kernels, copies, sets) of the scopes of a pattern, or all of them. An activity
-- belongs to the scope that launched it, else to the scope of the forward op whose backward pass
-- launched it.
CREATE OR REPLACE PERFETTO FUNCTION traceq_kernels(
  -- JSON array of the scopes' names, as traceq_names() gives it; NULL for the whole trace.
  under STRING
)
RETURNS TABLE(
  -- Id of the activity's slice (slice.id).
  id LONG,
  -- (ns) Start on the GPU.
  ts LONG,
  -- (ns) Duration on the GPU.
  dur LONG,
  -- Name as it stands in the trace.
  name STRING,
  -- kernel, gpu_memcpy or gpu_memset.
  category STRING,
  -- Number of the GPU; NULL where the trace does not tell.
  device LONG,
  -- Number of the stream; NULL where the trace does not tell.
  stream LONG,
  -- Runtime or driver call that launched it (slice.id); NULL where the trace does not tell.
  launch_id LONG,
  -- Scope (slice.id) that it belongs to; NULL for the whole trace.
  scope_id LONG,
  -- 1 if it belongs to the scope by its backward pass, else 0.
  is_backward LONG,
  -- (ns) From the start of the launching call to the start of the activity.
  delay LONG
)
AS
WITH
  scope AS MATERIALIZED (SELECT id, ts, dur, track_id FROM traceq_scopes($under)),
  direct AS MATERIALIZED (
    SELECT l.id AS launch_id, s.id AS scope_id
    FROM scope s
    CROSS JOIN _traceq_launching l
    WHERE
      l.ts >= s.ts AND (l.ts < s.ts + s.dur OR l.id = s.id)
      AND l.track_id = s.track_id AND l.id >= s.id
    UNION
    -- On a lane of its own, below what hangs below the scope.
    SELECT l.id, s.id
    FROM _traceq_adopted_members m
    JOIN _traceq_launching l ON l.id = m.id
    JOIN _traceq_adopted_ancestors up ON up.root_id = m.root_id
    JOIN scope s ON s.id = up.ancestor_id
  ),
  backward AS (
    SELECT b.launch_id, s.id AS scope_id
    FROM scope s
    CROSS JOIN _traceq_backward_launches b
    WHERE
      b.ts >= s.ts AND (b.ts < s.ts + s.dur OR b.forward_id = s.id)
      AND b.track_id = s.track_id AND b.forward_id >= s.id
    UNION
    SELECT b.launch_id, s.id
    FROM _traceq_adopted_members m
    JOIN _traceq_backward_launches b ON b.forward_id = m.id
    JOIN _traceq_adopted_ancestors up ON up.root_id = m.root_id
    JOIN scope s ON s.id = up.ancestor_id
  ),
  owned AS MATERIALIZED (
    SELECT launch_id, scope_id, 0 AS is_backward FROM direct
    UNION ALL
    SELECT launch_id, scope_id, 1
    FROM backward
    WHERE launch_id NOT IN (SELECT launch_id FROM direct)
  )
SELECT
  a.id, a.ts, a.dur, a.name, a.category, a.device, a.stream, a.launch_id, o.scope_id,
  o.is_backward, a.delay
FROM traceq_activities a
JOIN owned o ON o.launch_id = a.launch_id
WHERE $under IS NOT NULL
UNION ALL
SELECT id, ts, dur, name, category, device, stream, launch_id, NULL, 0, delay
FROM traceq_activities
WHERE $under IS NULL;
