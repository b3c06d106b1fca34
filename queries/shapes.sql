-- The shapes of the inputs of each op, as the profiler recorded them (record_shapes).
CREATE OR REPLACE PERFETTO TABLE traceq_shapes(
  -- Id of the op's slice (slice.id).
  id LONG,
  -- Shapes of the inputs as JSON.
  dims STRING
)
AS
SELECT id, CAST(dims AS TEXT) AS dims
FROM (
  SELECT id, EXTRACT_ARG(arg_set_id, 'args.Input Dims') AS dims
  FROM slice
  WHERE category = 'cpu_op' AND arg_set_id IS NOT NULL
)
WHERE dims IS NOT NULL
ORDER BY id;
