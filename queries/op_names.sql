-- Which op each slice name belongs to. traceq replaces this table for each trace by one in which
-- addresses, line numbers and instance numbers are folded; as it stands, every name is its own op.
CREATE OR REPLACE PERFETTO TABLE traceq_op_names(
  -- Name as it stands in slice.name.
  name STRING,
  -- Name of the op, equal for all slices that count as one op.
  op STRING
)
AS
SELECT DISTINCT name, name AS op FROM slice;
