INCLUDE PERFETTO MODULE traceq.launches;
INCLUDE PERFETTO MODULE traceq.under;

-- GPU activities (kernels, copies, sets) launched under the scopes of a pattern, or all of them.
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
  -- Runtime or driver call that launched it (slice.id); NULL where the trace does not tell.
  launch_id LONG,
  -- Scope (slice.id) that launched it; NULL for the whole trace.
  scope_id LONG,
  -- (ns) From the start of the launching call to the start of the activity.
  delay LONG
)
AS
SELECT a.id, a.ts, a.dur, a.name, a.category, l.launch_id, b.scope_id, l.delay
FROM (
  SELECT id, scope_id FROM _traceq_below!($under)
  UNION ALL
  SELECT id, id FROM traceq_scopes($under)
) b
JOIN traceq_launches l ON l.launch_id = b.id
JOIN slice a ON a.id = l.activity_id
WHERE $under IS NOT NULL
UNION ALL
SELECT a.id, a.ts, a.dur, a.name, a.category, l.launch_id, NULL, l.delay
FROM slice a
LEFT JOIN traceq_launches l ON l.activity_id = a.id
WHERE $under IS NULL AND a.category IN ('kernel', 'gpu_memcpy', 'gpu_memset');
