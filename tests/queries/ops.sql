-- f: 60 + 40 + 6 + 10 µs in all; the calls of 40 and 6 lie inside the one of 60.
INCLUDE PERFETTO MODULE traceq.ops;
INCLUDE PERFETTO MODULE traceq.names;
SELECT * FROM traceq_ops(traceq_names('S')) ORDER BY op;
