INCLUDE PERFETTO MODULE traceq.op_names;
INCLUDE PERFETTO MODULE traceq.under;

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
  below AS MATERIALIZED (
    SELECT id, ts, dur, name, category, track_id, parent_id FROM traceq_under($under)
  ),
  children AS MATERIALIZED (
    SELECT parent_id AS id, SUM(dur) AS dur FROM below WHERE parent_id IS NOT NULL GROUP BY 1
  ),
  by_name AS (
    SELECT
      b.name,
      MIN(b.category) AS category,
      COUNT(*) AS calls,
      SUM(b.dur) AS total,
      SUM(b.dur - COALESCE(c.dur, 0)) AS self,
      MIN(b.dur) AS min,
      MAX(b.dur) AS max
    FROM below b
    LEFT JOIN children c ON c.id = b.id
    GROUP BY b.name
  ),
  nesting AS (
    SELECT
      n.op,
      b.dur,
      MAX(b.ts + b.dur) OVER (
        PARTITION BY b.track_id, n.op ORDER BY b.id
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ) > b.ts AS is_nested
    FROM traceq_op_names n
    JOIN below b ON b.name = n.name
    WHERE n.may_nest
  ),
  nested AS (SELECT op, SUM(dur) AS dur FROM nesting WHERE is_nested GROUP BY op)
SELECT
  n.op,
  MIN(b.category) AS category,
  SUM(b.calls) AS calls,
  SUM(b.total) AS total,
  SUM(b.self) AS self,
  CAST(SUM(b.total) AS DOUBLE) / SUM(b.calls) AS average,
  MIN(b.min) AS min,
  MAX(b.max) AS max,
  SUM(b.total) - COALESCE(MAX(x.dur), 0) AS outermost
FROM by_name b
JOIN traceq_op_names n ON n.name = b.name
LEFT JOIN nested x ON x.op = n.op
GROUP BY n.op;
