INCLUDE PERFETTO MODULE traceq.adopted;

-- Slices by their path. Those on a lane of their own, which hang below a slice on another lane, are
-- not merged: their ids are negative.
CREATE OR REPLACE PERFETTO TABLE _traceq_paths AS
SELECT
  stack_id AS id, parent_stack_id AS parent_id, name, category, TRUE AS on_lane,
  COUNT(*) AS calls, SUM(dur) AS total, MIN(dur) AS min, MAX(dur) AS max
FROM slice
WHERE
  (SELECT COUNT(*) FROM traceq_adopted) = 0
  OR id NOT IN (SELECT id FROM _traceq_adopted_members)
GROUP BY stack_id
UNION ALL
SELECT
  -1 - s.id,
  CASE
    WHEN a.id IS NULL THEN -1 - s.parent_id
    WHEN c.id IS NULL THEN up.stack_id
    ELSE -1 - up.id
  END,
  s.name, s.category, a.id IS NULL, 1, s.dur, s.dur, s.dur
FROM (SELECT DISTINCT id FROM _traceq_adopted_members) m
JOIN slice s ON s.id = m.id
LEFT JOIN traceq_adopted a ON a.id = m.id
LEFT JOIN slice up ON up.id = a.parent_id
LEFT JOIN (SELECT DISTINCT id FROM _traceq_adopted_members) c ON c.id = a.parent_id;

-- The call tree of the whole trace: one row for all slices with the same names from the top down.
CREATE OR REPLACE PERFETTO TABLE traceq_stacks(
  -- Number of the path.
  id LONG,
  -- The path without its last slice; 0 or NULL at the top.
  parent_id LONG,
  -- Name of the last slice, as it stands in the trace.
  name STRING,
  -- Category that the profiler gave it: cpu_op, python_function, kernel, ...
  category STRING,
  -- Number of slices.
  calls LONG,
  -- (ns) Sum of their durations, children included.
  total LONG,
  -- (ns) Sum of their durations less those of their direct children on the same lane.
  self LONG,
  -- (ns) Shortest slice.
  min LONG,
  -- (ns) Longest slice.
  max LONG
)
AS
SELECT
  p.id, p.parent_id, p.name, p.category, p.calls, p.total,
  p.total - COALESCE(c.total, 0) AS self,
  p.min, p.max
FROM _traceq_paths p
LEFT JOIN (
  SELECT parent_id, SUM(total) AS total
  FROM _traceq_paths
  -- A slice on a lane of its own takes nothing from what it hangs below.
  WHERE on_lane
  GROUP BY parent_id
) c ON c.parent_id = p.id;
