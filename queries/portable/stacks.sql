INCLUDE PERFETTO MODULE traceq.adopted;

-- As queries/stacks.sql, for engines whose slices have no stack_id (Perfetto from v54 on): paths
-- are numbered on the way down, which takes several times as long.
CREATE OR REPLACE PERFETTO TABLE _traceq_placed AS
SELECT
  s.id, COALESCE(a.parent_id, s.parent_id) AS parent_id, s.name, s.category, s.dur,
  a.id IS NULL AS on_lane
FROM slice s
LEFT JOIN traceq_adopted a ON a.id = s.id;

CREATE PERFETTO INDEX _traceq_placed_by_parent ON _traceq_placed(parent_id);

CREATE OR REPLACE PERFETTO TABLE _traceq_walked AS
WITH RECURSIVE
  walk(id, path, above) AS (
    SELECT id, HASH(COALESCE(category, ''), COALESCE(name, '')), 0
    FROM _traceq_placed
    WHERE parent_id IS NULL
    UNION ALL
    SELECT p.id, HASH(w.path, COALESCE(p.category, ''), COALESCE(p.name, ''), p.on_lane), w.path
    FROM walk w
    CROSS JOIN _traceq_placed p ON p.parent_id = w.id
  )
SELECT w.id, w.path, w.above, p.name, p.category, p.dur, p.on_lane
FROM walk w
CROSS JOIN _traceq_placed p ON p.id = w.id;

CREATE OR REPLACE PERFETTO TABLE _traceq_paths AS
SELECT
  path AS id, above AS parent_id, name, category, on_lane,
  COUNT(*) AS calls, SUM(dur) AS total, MIN(dur) AS min, MAX(dur) AS max
FROM _traceq_walked
GROUP BY path;

CREATE OR REPLACE PERFETTO TABLE traceq_stacks(
  id LONG, parent_id LONG, name STRING, category STRING, calls LONG, total LONG, self LONG,
  min LONG, max LONG
)
AS
SELECT
  p.id, p.parent_id, p.name, p.category, p.calls, p.total,
  p.total - COALESCE(c.total, 0) AS self,
  p.min, p.max
FROM _traceq_paths p
LEFT JOIN (
  SELECT parent_id, SUM(total) AS total FROM _traceq_paths WHERE on_lane GROUP BY parent_id
) c ON c.parent_id = p.id;
