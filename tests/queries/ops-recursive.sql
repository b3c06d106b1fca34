-- The scope itself is not under the scope: the call of 60 is the outermost one below it.
INCLUDE PERFETTO MODULE traceq.ops;
INCLUDE PERFETTO MODULE traceq.names;
SELECT * FROM traceq_ops(traceq_names('S')) ORDER BY op;
