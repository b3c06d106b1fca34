INCLUDE PERFETTO MODULE traceq.calls;
INCLUDE PERFETTO MODULE traceq.names;
SELECT ts, dur, name, op, scope, step, is_outermost
FROM traceq_calls(traceq_names('k.py(5)*'), traceq_names('nn.Module: S_*'))
ORDER BY ts;
