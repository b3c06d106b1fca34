-- Slices that overlap another slice of their thread without nesting, and therefore lie on a lane
-- of their own, away from the slice that contains them. slice.parent_id is NULL for these.
CREATE OR REPLACE PERFETTO TABLE traceq_adopted(
  -- Id of the slice (slice.id).
  id LONG,
  -- Id of the innermost slice that contains it, on another lane of the same thread.
  parent_id LONG
)
AS
SELECT id, EXTRACT_ARG(arg_set_id, 'traceq.parent') AS parent_id
FROM slice
WHERE
  (SELECT COUNT(*) FROM args WHERE flat_key = 'traceq.parent') > 0
  AND arg_set_id IS NOT NULL
  AND EXTRACT_ARG(arg_set_id, 'traceq.parent') IS NOT NULL;

-- Every slice below which an adopted slice hangs, up to the top of its container's lane.
CREATE OR REPLACE PERFETTO TABLE _traceq_adopters AS
SELECT a.id, a.parent_id AS ancestor_id FROM traceq_adopted a
UNION ALL
SELECT a.id, up.id AS ancestor_id FROM traceq_adopted a JOIN ancestor_slice(a.parent_id) up;

-- Every slice below an adopted one on its lane, and that one itself.
CREATE OR REPLACE PERFETTO TABLE _traceq_adopted_members AS
SELECT a.id AS root_id, a.id FROM traceq_adopted a
UNION ALL
SELECT a.id AS root_id, down.id
FROM traceq_adopted a
JOIN slice s ON s.id = a.id
JOIN descendant_slice(a.id) down
-- descendant_slice() of Perfetto v52 to v54 also gives deeper slices that start at the very end.
WHERE down.ts < s.ts + s.dur OR s.dur = 0;

-- Everything around an adopted slice, also where its containers are on adopted lanes themselves.
CREATE OR REPLACE PERFETTO TABLE _traceq_adopted_ancestors AS
WITH RECURSIVE
  up(root_id, ancestor_id) AS (
    SELECT id, ancestor_id FROM _traceq_adopters
    UNION
    SELECT u.root_id, a.ancestor_id
    FROM up u
    JOIN _traceq_adopted_members m ON m.id = u.ancestor_id
    JOIN _traceq_adopters a ON a.id = m.root_id
  )
SELECT root_id, ancestor_id FROM up;
