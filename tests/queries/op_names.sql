INCLUDE PERFETTO MODULE traceq.op_names;
SELECT name, op FROM traceq_op_names ORDER BY name;
