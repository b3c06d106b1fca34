INCLUDE PERFETTO MODULE traceq.op_names;

-- The nn.Module classes of the trace, from the profiler's module frames: what can be a scope.
CREATE OR REPLACE PERFETTO TABLE traceq_modules(
  -- Class of the module, without its instance number.
  module STRING,
  -- Number of instances that were called.
  instances LONG,
  -- Number of calls.
  calls LONG,
  -- (ns) Sum of their durations, children included.
  total LONG
)
AS
SELECT
  SUBSTR(n.op, LENGTH('nn.Module: ') + 1) AS module,
  COUNT(DISTINCT s.name) AS instances,
  COUNT(*) AS calls,
  SUM(s.dur) AS total
FROM slice s
JOIN traceq_op_names n ON n.name = s.name
WHERE s.name GLOB 'nn.Module: *'
GROUP BY n.op
ORDER BY total DESC, module;
