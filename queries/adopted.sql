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

-- Every slice with the top slice of its lane, where that one is adopted.
CREATE OR REPLACE PERFETTO TABLE _traceq_adopted_members AS
SELECT a.id AS root_id, a.id FROM traceq_adopted a
UNION ALL
SELECT a.id AS root_id, down.id FROM traceq_adopted a JOIN descendant_slice(a.id) down;
