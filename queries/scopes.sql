INCLUDE PERFETTO MODULE traceq.adopted;

-- The scopes of a pattern: slices with one of the names that have none of the names above them.
-- Nested matches are thus counted once.
CREATE OR REPLACE PERFETTO FUNCTION traceq_scopes(
  -- JSON array of slice names, as traceq_names() gives it.
  names STRING
)
RETURNS TABLE(
  -- Id of the scope's slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- (ns) Duration.
  dur LONG,
  -- Name as it stands in the trace.
  name STRING,
  -- Track (track.id) of the scope's thread.
  track_id LONG
)
AS
WITH RECURSIVE
  matched AS MATERIALIZED (
    SELECT id, ts, dur, name, track_id
    FROM slice
    WHERE name IN (SELECT value FROM json_each($names))
  ),
  -- On one lane slices are either nested or apart, so one look at what came before tells.
  outermost AS MATERIALIZED (
    SELECT id, ts, dur, name, track_id
    FROM (
      SELECT
        *,
        MAX(ts + dur) OVER (
          PARTITION BY track_id ORDER BY id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS ended
      FROM matched
    )
    WHERE ended IS NULL OR ended <= ts
  ),
  -- Where a lane hangs below a slice on another lane, what is above that counts as well.
  climb(id, at) AS (
    SELECT o.id, m.root_id
    FROM outermost o JOIN _traceq_adopted_members m ON m.id = o.id
    UNION
    SELECT c.id, m.root_id
    FROM climb c
    JOIN traceq_adopted a ON a.id = c.at
    JOIN _traceq_adopted_members m ON m.id = a.parent_id
  )
SELECT id, ts, dur, name, track_id
FROM outermost
WHERE
  id NOT IN (
    SELECT c.id
    FROM climb c
    JOIN _traceq_adopters up ON up.id = c.at
    JOIN matched m ON m.id = up.ancestor_id
  );
