-- Sums up the calls of one side of a replacement: those with no other matching call around them.
--
-- Table: calls: a result of traceq_calls(). Times are ns.
WITH
  looked_back AS (
    SELECT
      dur,
      max(ts + dur) OVER (
        PARTITION BY track_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
      ) AS ended,
      ts
    FROM calls
  )
SELECT
  count(*) AS calls,
  sum(dur)::BIGINT AS total,
  sum(dur) / count(*) AS average,
  min(dur) AS min,
  max(dur) AS max
FROM looked_back
WHERE ended IS NULL OR ended <= ts;
