-- The figures of one op in every capture of the scopes: its calls, the sum of their durations and
-- the GPU time of what they launched (ns); 0 where it is not called.
SELECT
  run,
  coalesce(ops.calls, 0) AS calls,
  coalesce(total, 0) AS total,
  coalesce(gpu_total, 0) AS gpu
FROM captures LEFT JOIN ops ON ops.capture = captures.capture AND op = $name
WHERE under = $under AND within = $within AND list_contains($runs, run)
ORDER BY run, place;
