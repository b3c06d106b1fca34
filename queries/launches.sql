-- Which CPU call launched which GPU activity (kernel, copy or set), joined by correlation number.
-- One launch may have many activities (graph replay); an activity has at most one launch, and none
-- where several processes of a merged trace use its number.
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
    SELECT id, ts, track_id, category, EXTRACT_ARG(arg_set_id, 'args.correlation') AS correlation
    FROM slice
    WHERE
      category IN (
        'cuda_runtime', 'cuda_driver', 'hip_runtime', 'hip_driver', 'xpu_runtime', 'xpu_driver',
        'privateuse1_runtime', 'privateuse1_driver', 'kernel', 'gpu_memcpy', 'gpu_memset'
      )
  ),
  launch AS (
    SELECT n.correlation, MIN(n.id) AS id, MIN(n.ts) AS ts
    FROM numbered n
    JOIN thread_track k ON k.id = n.track_id
    JOIN thread h ON h.utid = k.utid
    WHERE n.category NOT IN ('kernel', 'gpu_memcpy', 'gpu_memset') AND n.correlation != 0
    GROUP BY n.correlation
    -- Processes number for themselves: where two share a number, none is known to be the one.
    HAVING COUNT(DISTINCT h.upid) = 1
  )
SELECT a.id AS activity_id, l.id AS launch_id, a.correlation, a.ts - l.ts AS delay
FROM numbered a
JOIN launch l ON l.correlation = a.correlation
WHERE a.category IN ('kernel', 'gpu_memcpy', 'gpu_memset')
ORDER BY a.id;
