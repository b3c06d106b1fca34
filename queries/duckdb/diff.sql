-- Joins the op tables of two traces into one row per op.
--
-- Tables: before, after: results of Trace.ops() without the rows that have no calls, combined over
-- the captures of a side. Times are ns; deltas are after less before, with an absent side counted as 0.
SELECT
  row_status(b.calls, a.calls) AS status,
  coalesce(b.op, a.op) AS op,
  NULL::VARCHAR AS replaced_by,
  coalesce(b.category, a.category) AS category,
  b.calls AS calls_before,
  a.calls AS calls_after,
  b.calls_low AS calls_low_before,
  a.calls_low AS calls_low_after,
  b.calls_high AS calls_high_before,
  a.calls_high AS calls_high_after,
  b.total AS total_before,
  a.total AS total_after,
  coalesce(a.total, 0) - coalesce(b.total, 0) AS delta,
  b.total / nullif(a.total, 0)::DOUBLE AS ratio,
  b.average AS average_before,
  a.average AS average_after,
  b.min AS min_before,
  a.min AS min_after,
  b.max AS max_before,
  a.max AS max_after,
  b.self AS self_before,
  a.self AS self_after,
  coalesce(a.self, 0) - coalesce(b.self, 0) AS self_delta,
  b.outermost AS outermost_before,
  a.outermost AS outermost_after,
  b.gpu_total AS gpu_total_before,
  a.gpu_total AS gpu_total_after,
  coalesce(a.gpu_total, 0) - coalesce(b.gpu_total, 0) AS gpu_delta,
  b.gpu_self AS gpu_self_before,
  a.gpu_self AS gpu_self_after,
  b.gpu_busy AS gpu_busy_before,
  a.gpu_busy AS gpu_busy_after,
  b.launches AS launches_before,
  a.launches AS launches_after,
  b.activities AS activities_before,
  a.activities AS activities_after
FROM before AS b
FULL OUTER JOIN after AS a ON a.op = b.op
ORDER BY status_rank(status), abs(delta) DESC, coalesce(b.op, a.op);
