INCLUDE PERFETTO MODULE traceq.op_names;
INCLUDE PERFETTO MODULE traceq.under;

-- Time of the direct children of each slice that has any, on its lane.
CREATE OR REPLACE PERFETTO TABLE _traceq_children AS
SELECT parent_id AS id, SUM(dur) AS dur
FROM slice
WHERE parent_id IS NOT NULL
GROUP BY parent_id;

-- One row per op under the scopes of a pattern, or of the whole trace.
CREATE OR REPLACE PERFETTO FUNCTION traceq_ops(
  -- JSON array of the scopes' names, as traceq_names() gives it; NULL for the whole trace.
  under STRING
)
RETURNS TABLE(
  -- Name of the op: slice names with addresses, line and instance numbers folded.
  op STRING,
  -- Category that the profiler gave it: cpu_op, python_function, kernel, ...
  category STRING,
  -- Number of slices.
  calls LONG,
  -- (ns) Sum of their durations, children included.
  total LONG,
  -- (ns) Sum of their durations less those of their direct children on the same lane.
  self LONG,
  -- (ns) Mean duration of a call.
  average DOUBLE,
  -- (ns) Shortest call.
  min LONG,
  -- (ns) Longest call.
  max LONG,
  -- (ns) Sum over the calls that have no other call of the same op around them under the scope.
  outermost LONG
)
AS
WITH
  by_name AS (
    SELECT
      b.name,
      b.category IS 'gpu_user_annotation' AS is_gpu_label,
      MIN(b.category) AS category,
      COUNT(*) AS calls,
      SUM(b.dur) AS total,
      SUM(b.dur - COALESCE(c.dur, 0)) AS self,
      MIN(b.dur) AS min,
      MAX(b.dur) AS max
    FROM _traceq_below!($under) b
    LEFT JOIN _traceq_children c ON c.id = b.id
    GROUP BY b.name, is_gpu_label
  ),
  -- Calls of the few ops that nest at all, in order of time on their lane.
  candidate AS (
    SELECT id, ts, dur, name, track_id, category IS 'gpu_user_annotation' AS is_gpu_label
    FROM _traceq_below!($under)
    WHERE +name IN (SELECT name FROM traceq_op_names WHERE may_nest)
  ),
  nesting AS (
    SELECT
      n.op,
      b.is_gpu_label,
      b.id,
      b.dur,
      MAX(b.ts + MAX(b.dur, 1)) OVER (
        PARTITION BY b.track_id, n.op ORDER BY b.id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ) > b.ts AS is_nested
    FROM candidate b
    CROSS JOIN traceq_op_names n ON n.name = b.name
  ),
  -- Calls on a lane of their own, with a call of their op around what they hang below.
  adopted AS (
    SELECT n.op, b.is_gpu_label, b.id, b.dur
    FROM _traceq_adopted_members m
    CROSS JOIN candidate b ON b.id = m.id
    CROSS JOIN traceq_op_names n ON n.name = b.name
    CROSS JOIN _traceq_adopted_ancestors up ON up.root_id = m.root_id
    CROSS JOIN candidate around ON around.id = up.ancestor_id
    CROSS JOIN traceq_op_names other ON other.name = around.name AND other.op = n.op
  ),
  nested AS (
    SELECT op, is_gpu_label, SUM(dur) AS dur
    FROM (
      SELECT op, is_gpu_label, id, dur FROM nesting WHERE is_nested
      UNION
      SELECT op, is_gpu_label, id, dur FROM adopted
    )
    GROUP BY op, is_gpu_label
  )
SELECT
  -- The GPU's copy of a label is no call of the label, so it is an op of its own.
  COALESCE(n.op, b.name) || IIF(b.is_gpu_label, ' (on the GPU)', '') AS op,
  MIN(b.category) AS category,
  SUM(b.calls) AS calls,
  SUM(b.total) AS total,
  SUM(b.self) AS self,
  CAST(SUM(b.total) AS DOUBLE) / SUM(b.calls) AS average,
  MIN(b.min) AS min,
  MAX(b.max) AS max,
  SUM(b.total) - COALESCE(MAX(x.dur), 0) AS outermost
FROM by_name b
LEFT JOIN traceq_op_names n ON n.name = b.name
LEFT JOIN nested x ON x.op = n.op AND x.is_gpu_label = b.is_gpu_label
GROUP BY 1;
