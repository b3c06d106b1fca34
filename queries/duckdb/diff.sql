-- Joins the op tables of two traces into one row per op.
--
-- Tables: before, after: results of traceq_ops(). An op with as many calls as before is shifted
-- where its total moved by $large ns, or by $small ns with its average call moved by $factor.
-- Times are ns; delta is after less before, with an absent side counted as 0.
SELECT
  CASE
    WHEN b.op IS NULL THEN 'added'
    WHEN a.op IS NULL THEN 'removed'
    WHEN a.calls != b.calls THEN 'changed'
    WHEN
      abs(a.total - b.total) >= $large
      OR (
        abs(a.total - b.total) >= $small
        AND greatest(a.average, b.average) > $factor * least(a.average, b.average)
      )
      THEN 'shifted'
    ELSE 'same'
  END AS status,
  coalesce(b.op, a.op) AS op,
  NULL::VARCHAR AS replaced_by,
  coalesce(b.category, a.category) AS category,
  b.calls AS calls_before,
  a.calls AS calls_after,
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
  a.outermost AS outermost_after
FROM before AS b
FULL OUTER JOIN after AS a ON a.op = b.op
ORDER BY
  list_position(['changed', 'shifted', 'added', 'removed', 'same'], status),
  abs(delta) DESC,
  coalesce(b.op, a.op);
