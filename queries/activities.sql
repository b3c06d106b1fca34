-- Calls into the GPU's runtime and driver, with the number that joins them to what they launch.
CREATE OR REPLACE PERFETTO TABLE _traceq_gpu_calls AS
SELECT id, ts, track_id, CAST(EXTRACT_ARG(arg_set_id, 'args.correlation') AS INTEGER) AS correlation
FROM slice
WHERE
  category IN (
    'cuda_runtime', 'cuda_driver', 'hip_runtime', 'hip_driver', 'xpu_runtime', 'xpu_driver',
    'privateuse1_runtime', 'privateuse1_driver', 'mtia_runtime'
  );

-- Numbers that calls of several processes of a merged trace share: processes number for themselves,
-- so none of the calls is known to be the one.
CREATE OR REPLACE PERFETTO TABLE _traceq_shared_numbers AS
WITH
  process AS MATERIALIZED (
    SELECT DISTINCT c.track_id, h.upid
    FROM (SELECT DISTINCT track_id FROM _traceq_gpu_calls) c
    JOIN thread_track k ON k.id = c.track_id
    JOIN thread h ON h.utid = k.utid
  )
SELECT c.correlation
FROM _traceq_gpu_calls c
JOIN process p ON p.track_id = c.track_id
WHERE (SELECT COUNT(DISTINCT upid) FROM process) > 1 AND c.correlation IS NOT NULL
GROUP BY c.correlation
HAVING COUNT(DISTINCT p.upid) > 1;

-- Activities with the call of their number, where there is one.
CREATE OR REPLACE PERFETTO TABLE _traceq_correlated AS
WITH
  launch AS (
    SELECT correlation, MIN(id) AS id, MIN(ts) AS ts
    FROM _traceq_gpu_calls
    WHERE correlation != 0 AND correlation NOT IN (SELECT correlation FROM _traceq_shared_numbers)
    GROUP BY correlation
  ),
  activity AS (
    SELECT
      id, ts,
      EXTRACT_ARG(arg_set_id, 'args.device') AS device,
      EXTRACT_ARG(arg_set_id, 'args.stream') AS stream,
      CAST(EXTRACT_ARG(arg_set_id, 'args.correlation') AS INTEGER) AS correlation
    FROM slice
    WHERE category IN ('kernel', 'gpu_memcpy', 'gpu_memset')
  )
SELECT
  a.id, a.ts,
  IIF(TYPEOF(a.device) = 'integer', a.device, NULL) AS device,
  IIF(TYPEOF(a.stream) = 'integer', a.stream, NULL) AS stream,
  a.correlation, l.id AS launch_id, l.ts AS launch_ts
FROM activity a
LEFT JOIN launch l ON l.correlation = a.correlation;

-- The others, where an arrow of the profiler (ac2g) comes from a call.
CREATE OR REPLACE PERFETTO TABLE _traceq_pointed AS
SELECT a.id, MIN(f.slice_out) AS launch_id
FROM _traceq_correlated a
CROSS JOIN flow f ON f.slice_in = a.id
CROSS JOIN slice o ON o.id = f.slice_out
WHERE
  a.launch_id IS NULL
  AND COALESCE(o.category, '') NOT IN ('kernel', 'gpu_memcpy', 'gpu_memset')
  -- The arrows of several processes have the same numbers as their calls.
  AND (
    a.correlation IS NULL
    OR a.correlation NOT IN (SELECT correlation FROM _traceq_shared_numbers)
  )
GROUP BY a.id;

-- What is left, with the number of the op that asked for it (External id).
CREATE OR REPLACE PERFETTO TABLE _traceq_unlaunched AS
SELECT a.id, CAST(EXTRACT_ARG(s.arg_set_id, 'args.External id') AS TEXT) AS external_id
FROM _traceq_correlated a
CROSS JOIN slice s ON s.id = a.id
WHERE a.launch_id IS NULL AND a.id NOT IN (SELECT id FROM _traceq_pointed);

CREATE OR REPLACE PERFETTO TABLE _traceq_external AS
WITH
  op AS (
    SELECT CAST(EXTRACT_ARG(arg_set_id, 'args.External id') AS TEXT) AS external_id, id
    FROM slice
    WHERE (SELECT COUNT(*) FROM _traceq_unlaunched) > 0 AND category = 'cpu_op'
  )
SELECT u.id, MIN(o.id) AS launch_id
FROM _traceq_unlaunched u
JOIN op o ON o.external_id = u.external_id
-- With +, since the engine's own != on texts with NULL among them gives wrong rows.
WHERE +u.external_id != '0'
GROUP BY u.id
-- Two ops of one number: the trace holds several processes, and none is known to be the one.
HAVING COUNT(*) = 1;

-- The activities with what is known of their launch; without their names, since those of kernels are
-- long and take as long to copy as all the rest.
CREATE OR REPLACE PERFETTO TABLE _traceq_launched AS
SELECT id, device, stream, launch_id, 'correlation' AS via, ts - launch_ts AS delay
FROM _traceq_correlated
WHERE launch_id IS NOT NULL
UNION ALL
SELECT a.id, a.device, a.stream, j.launch_id, j.via, a.ts - l.ts
FROM _traceq_correlated a
LEFT JOIN (
  SELECT id, launch_id, 'flow' AS via FROM _traceq_pointed
  UNION ALL
  SELECT id, launch_id, 'external id' AS via FROM _traceq_external
) j ON j.id = a.id
LEFT JOIN slice l ON l.id = j.launch_id
WHERE a.launch_id IS NULL;

-- Everything that the GPU did: kernels, copies and sets, each once, with the CPU call that launched
-- it. Their durations add up to the trace's GPU time; labels on the GPU's tracks
-- (gpu_user_annotation) span kernels and are left out. An activity is joined with its launch by
-- correlation number, else by the profiler's arrow, else by the number of the op. One launch may
-- have many activities (graph replay); an activity has at most one launch.
CREATE OR REPLACE PERFETTO VIEW traceq_activities(
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
  -- Runtime or driver call, or op, that launched it (slice.id); NULL where the trace does not tell.
  launch_id LONG,
  -- What joins the two: correlation, flow or external id.
  via STRING,
  -- (ns) From the start of the launching call to the start of the activity.
  delay LONG
)
AS
SELECT a.id, s.ts, s.dur, s.name, s.category, a.device, a.stream, a.launch_id, a.via, a.delay
FROM _traceq_launched a
JOIN slice s ON s.id = a.id;
