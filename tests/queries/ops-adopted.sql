-- The inner f overlaps g and so lies on another lane, but the outer f is around it all the same.
INCLUDE PERFETTO MODULE traceq.ops;
INCLUDE PERFETTO MODULE traceq.names;
SELECT * FROM traceq_ops(traceq_names('S')) ORDER BY op;
