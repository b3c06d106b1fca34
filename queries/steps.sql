-- The steps that torch.profiler marked: one row per ProfilerStep#N label of the CPU.
CREATE OR REPLACE PERFETTO TABLE traceq_steps(
  -- Number after the # of the label.
  step LONG,
  -- Id of the label's slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- (ns) Duration.
  dur LONG
)
AS
SELECT CAST(SUBSTR(name, LENGTH('ProfilerStep#') + 1) AS LONG) AS step, id, ts, dur
FROM slice
WHERE
  name GLOB 'ProfilerStep#[0-9]*'
  AND LTRIM(SUBSTR(name, LENGTH('ProfilerStep#') + 1), '0123456789') = ''
  AND LENGTH(name) <= LENGTH('ProfilerStep#') + 18 -- what a number holds
  AND category != 'gpu_user_annotation'
ORDER BY ts;
