-- Joins the kernel tables of two traces into one row per kernel, copy or set.
--
-- Tables: before, after: results of Trace.kernels() without the rows outside of the scopes,
-- combined over the captures of a side. Times are ns on the GPU; delta is after less before, with an absent
-- side counted as 0. A row of the same calls and other full names is changed, not same.
SELECT
  row_status(b.calls, a.calls) AS status,
  coalesce(b.kernel, a.kernel) AS kernel,
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
  b.busy AS busy_before,
  a.busy AS busy_after,
  b.variants AS variants_before,
  a.variants AS variants_after,
  b.launches AS launches_before,
  a.launches AS launches_after,
  b.ops AS ops_before,
  a.ops AS ops_after
FROM before AS b
FULL OUTER JOIN after AS a ON a.kernel = b.kernel
ORDER BY status_rank(status), abs(delta) DESC, coalesce(b.kernel, a.kernel);
