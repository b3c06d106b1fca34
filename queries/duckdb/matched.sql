-- Sums up the calls of one side of a replacement: those with no other matching call around them.
--
-- Table: calls: a result of traceq_calls(). Times are ns.
SELECT
  count(*) AS calls,
  coalesce(sum(dur), 0)::BIGINT AS total,
  sum(dur) / nullif(count(*), 0) AS average,
  min(dur) AS min,
  max(dur) AS max
FROM calls
WHERE is_outermost;
