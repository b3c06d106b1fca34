-- The figures of one kernel in every capture of the scopes: its calls and the sum of their
-- durations (ns); 0 where it is not launched.
SELECT
  run,
  coalesce(kernels.calls, 0) AS calls,
  coalesce(total, 0) AS total,
  coalesce(total, 0) AS gpu
FROM captures LEFT JOIN kernels ON kernels.capture = captures.capture AND kernel = $name
WHERE under = $under AND within = $within AND list_contains($runs, run)
ORDER BY run, place;
