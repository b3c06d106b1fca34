-- Which op each slice name belongs to. traceq replaces this table for each trace by one in which
-- addresses, line numbers and instance numbers are folded; as it stands, every name is its own op.
CREATE OR REPLACE PERFETTO TABLE traceq_op_names(
  -- Name as it stands in slice.name.
  name STRING,
  -- Name of the op, equal for all slices that count as one op.
  op STRING,
  -- 1 if a call of the op may have another call of it among its ancestors, 0 if none has.
  may_nest LONG
)
AS
SELECT DISTINCT name, name AS op, 1 AS may_nest FROM slice;
