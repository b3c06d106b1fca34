-- Arrows of the profiler (fwdbwd) from an op of the forward pass to the one that it caused.
CREATE OR REPLACE PERFETTO TABLE _traceq_backward_arrows AS
SELECT f.slice_in AS id, MIN(f.slice_out) AS forward_id
FROM flow f
JOIN slice i ON i.id = f.slice_in
JOIN slice o ON o.id = f.slice_out
WHERE i.category = 'cpu_op' AND o.category = 'cpu_op'
GROUP BY f.slice_in;

-- Ops with autograd's sequence number; the thread of the forward pass is named in the backward
-- pass only.
CREATE OR REPLACE PERFETTO TABLE _traceq_sequenced AS
SELECT
  s.id, k.utid, h.upid,
  EXTRACT_ARG(s.arg_set_id, 'args.Sequence number') AS sequence_number,
  CAST(COALESCE(EXTRACT_ARG(s.arg_set_id, 'args.Fwd thread id'), 0) AS LONG) != 0 AS is_backward
FROM slice s
JOIN thread_track k ON k.id = s.track_id
JOIN thread h ON h.utid = k.utid
WHERE
  -- Without a backward op there is nothing to look for.
  (SELECT COUNT(*) FROM args WHERE flat_key = 'args.Fwd thread id' AND int_value != 0) > 0
  AND s.category = 'cpu_op'
  AND TYPEOF(EXTRACT_ARG(s.arg_set_id, 'args.Sequence number')) = 'integer'
  AND EXTRACT_ARG(s.arg_set_id, 'args.Sequence number') >= 0;

-- The op that made each node of autograd's graph: of the forward ops with one number the last has
-- made the node; those before it only saw the number that was next.
CREATE OR REPLACE PERFETTO TABLE _traceq_forward AS
SELECT upid, sequence_number, MAX(id) AS id
FROM _traceq_sequenced
WHERE NOT is_backward
GROUP BY upid, sequence_number
-- Threads number for themselves: where two share a number, none is known to be the one. Lanes of
-- one thread are threads of the engine, but a number is seldom on two of them.
HAVING COUNT(DISTINCT utid) = 1
ORDER BY sequence_number;

-- Backward ops whose number no forward op has: an op that makes several nodes (CopySlices) shows
-- the number of the first alone. Only up to a few numbers on, where one thread of the process
-- numbers, and went on to number others.
CREATE OR REPLACE PERFETTO TABLE _traceq_unnumbered AS
SELECT
  b.id, b.upid,
  (
    SELECT MAX(f.sequence_number)
    FROM _traceq_forward f
    WHERE
      f.upid = b.upid
      AND f.sequence_number < b.sequence_number
      AND f.sequence_number >= b.sequence_number - 4
  ) AS sequence_number
FROM _traceq_sequenced b
LEFT JOIN _traceq_forward f ON f.upid = b.upid AND f.sequence_number = b.sequence_number
JOIN (
  SELECT upid, MAX(sequence_number) AS last
  FROM _traceq_sequenced
  WHERE NOT is_backward
  GROUP BY upid
  HAVING COUNT(DISTINCT utid) = 1
) numbered ON numbered.upid = b.upid
WHERE b.is_backward AND f.id IS NULL AND b.sequence_number < numbered.last;

-- The ops of backward passes, each with the op of the forward pass that it belongs to: by the
-- profiler's arrow, else by autograd's sequence number.
CREATE OR REPLACE PERFETTO TABLE traceq_backward(
  -- Id of the backward op's slice (slice.id).
  id LONG,
  -- Id of the forward op's slice (slice.id).
  forward_id LONG,
  -- What joins the two: flow, sequence number, or the sequence number before.
  via STRING
)
AS
WITH
  linked AS (
    SELECT id, forward_id, 'flow' AS via FROM _traceq_backward_arrows
    UNION ALL
    SELECT b.id, f.id, 'sequence number'
    FROM _traceq_sequenced b
    JOIN _traceq_forward f ON f.upid = b.upid AND f.sequence_number = b.sequence_number
    LEFT JOIN _traceq_backward_arrows a ON a.id = b.id
    WHERE b.is_backward AND a.id IS NULL
    UNION ALL
    SELECT b.id, f.id, 'sequence number before'
    FROM _traceq_unnumbered b
    JOIN _traceq_forward f ON f.upid = b.upid AND f.sequence_number = b.sequence_number
    LEFT JOIN _traceq_backward_arrows a ON a.id = b.id
    WHERE a.id IS NULL
  )
SELECT id, forward_id, via FROM linked WHERE forward_id < id ORDER BY id;
