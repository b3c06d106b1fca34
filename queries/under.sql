INCLUDE PERFETTO MODULE traceq.adopted;
INCLUDE PERFETTO MODULE traceq.scopes;

-- The rows of traceq_under(), written out in place: a function's rows are handed over one by one,
-- which takes several times as long.
CREATE OR REPLACE PERFETTO MACRO _traceq_below(names Expr)
RETURNS TableOrSubquery
AS
(
  WITH
    scope AS MATERIALIZED (SELECT id FROM traceq_scopes($names)),
    -- Scopes, and slices on other lanes that belong below one.
    root AS MATERIALIZED (
      SELECT id, id AS scope_id FROM scope
      UNION
      SELECT a.root_id, s.id FROM scope s JOIN _traceq_adopted_ancestors a ON a.ancestor_id = s.id
    ),
    top AS MATERIALIZED (
      SELECT r.id, r.scope_id, s.ts, s.dur FROM root r JOIN slice s ON s.id = r.id
    )
  SELECT d.id, d.ts, d.dur, d.name, d.category, d.track_id, d.parent_id, d.arg_set_id, t.scope_id
  FROM top t
  JOIN descendant_slice(t.id) d
  -- descendant_slice() of Perfetto v52 to v54 also gives deeper slices that start at the very end.
  WHERE d.ts < t.ts + t.dur OR t.dur = 0
  UNION ALL
  SELECT s.id, s.ts, s.dur, s.name, s.category, s.track_id, s.parent_id, s.arg_set_id, r.scope_id
  FROM root r
  JOIN slice s ON s.id = r.id
  WHERE r.id != r.scope_id
  UNION ALL
  SELECT id, ts, dur, name, category, track_id, parent_id, arg_set_id, NULL
  FROM slice
  WHERE $names IS NULL
);

-- Every slice below the scopes of a pattern, without the scopes themselves; or every slice of the
-- trace, where no names are given.
CREATE OR REPLACE PERFETTO FUNCTION traceq_under(
  -- JSON array of slice names, as traceq_names() gives it; NULL for the whole trace.
  names STRING
)
RETURNS TABLE(
  -- Id of the slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- (ns) Duration.
  dur LONG,
  -- Name as it stands in the trace.
  name STRING,
  -- Category that the profiler gave it: cpu_op, python_function, kernel, ...
  category STRING,
  -- Track (track.id); a further lane of a thread is a track of its own.
  track_id LONG,
  -- Slice (slice.id) that directly contains it on its lane; NULL for none.
  parent_id LONG,
  -- Scope (slice.id) that it is under; NULL for the whole trace.
  scope_id LONG
)
AS
SELECT id, ts, dur, name, category, track_id, parent_id, scope_id FROM _traceq_below!($names);
