-- The embedding lookups with the shapes of their inputs: the second is that of the tokens, which
-- tells a prefill step (many tokens of each sequence) from a decode step (one).
CREATE OR REPLACE PERFETTO TABLE traceq_embeddings(
  -- Id of the op's slice (slice.id).
  id LONG,
  -- (ns) Start.
  ts LONG,
  -- Shapes of the inputs as JSON; NULL where they were not recorded.
  dims STRING
)
AS
SELECT id, ts, CAST(EXTRACT_ARG(arg_set_id, 'args.Input Dims') AS TEXT) AS dims
FROM slice
WHERE name = 'aten::embedding' AND category = 'cpu_op'
ORDER BY ts;
