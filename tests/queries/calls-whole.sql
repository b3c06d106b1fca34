INCLUDE PERFETTO MODULE traceq.calls;
INCLUDE PERFETTO MODULE traceq.names;
SELECT ts, dur, name, op, scope_id, scope, step, is_outermost
FROM traceq_calls(traceq_names('k.py(?): f'), NULL)
ORDER BY ts;
