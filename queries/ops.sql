INCLUDE PERFETTO MODULE traceq.names;
INCLUDE PERFETTO MODULE traceq.op_names;
INCLUDE PERFETTO MODULE traceq.stacks;

CREATE PERFETTO INDEX _traceq_stacks_by_parent ON traceq_stacks(parent_id);

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
  max LONG
)
AS
WITH RECURSIVE
  -- Everything below a match is below the outermost one: UNION keeps each path once.
  below(id) AS (
    SELECT s.id
    FROM traceq_stacks m
    CROSS JOIN traceq_stacks s ON s.parent_id = m.id
    WHERE
      $under IS NOT NULL
      AND +m.name IN (SELECT value FROM json_each($under))
      -- The GPU's copy of a label is not a scope of its own, nor is a kernel named like one.
      AND COALESCE(m.category, '') NOT IN
        ('gpu_user_annotation', 'kernel', 'gpu_memcpy', 'gpu_memset')
    UNION
    SELECT s.id FROM below b CROSS JOIN traceq_stacks s ON s.parent_id = b.id
  ),
  chosen AS (
    SELECT s.* FROM below b CROSS JOIN traceq_stacks s ON s.id = b.id
    UNION ALL
    SELECT * FROM traceq_stacks WHERE $under IS NULL
  ),
  by_name AS (
    SELECT
      name,
      category IS 'gpu_user_annotation' AS is_gpu_label,
      MIN(category) AS category,
      SUM(calls) AS calls,
      SUM(total) AS total,
      SUM(self) AS self,
      MIN(min) AS min,
      MAX(max) AS max
    FROM chosen
    GROUP BY name, is_gpu_label
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
  MAX(b.max) AS max
FROM by_name b
LEFT JOIN traceq_op_names n ON n.name = b.name
GROUP BY 1;
