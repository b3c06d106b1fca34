-- Which CPU call launched which GPU activity (kernel, copy or set), joined by correlation number.
-- One launch may have many activities (graph replay); an activity has at most one launch.
CREATE OR REPLACE PERFETTO TABLE traceq_launches(
  -- Id of the GPU activity's slice (slice.id).
  activity_id LONG,
  -- Id of the runtime or driver call (slice.id).
  launch_id LONG,
  -- Number that joins the two.
  correlation LONG,
  -- (ns) From the start of the launching call to the start of the activity.
  delay LONG
)
AS
WITH
  numbered AS MATERIALIZED (
    SELECT id, ts, category, EXTRACT_ARG(arg_set_id, 'args.correlation') AS correlation
    FROM slice
    WHERE
      category IN (
        'cuda_runtime', 'cuda_driver', 'hip_runtime', 'xpu_runtime', 'privateuse1_runtime',
        'kernel', 'gpu_memcpy', 'gpu_memset'
      )
  ),
  launch AS (
    SELECT correlation, MIN(id) AS id, MIN(ts) AS ts
    FROM numbered
    WHERE category NOT IN ('kernel', 'gpu_memcpy', 'gpu_memset') AND correlation != 0
    GROUP BY correlation
  )
SELECT a.id AS activity_id, l.id AS launch_id, a.correlation, a.ts - l.ts AS delay
FROM numbered a
JOIN launch l ON l.correlation = a.correlation
WHERE a.category IN ('kernel', 'gpu_memcpy', 'gpu_memset')
ORDER BY a.id;
