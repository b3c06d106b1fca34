INCLUDE PERFETTO MODULE traceq.op_names;
SELECT name, op, may_nest FROM traceq_op_names ORDER BY name;
