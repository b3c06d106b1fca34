-- The inner f lies on another lane, g between the two: the outer f is around it all the same.
INCLUDE PERFETTO MODULE traceq.calls;
INCLUDE PERFETTO MODULE traceq.names;
SELECT ts, dur, name, scope, step, is_outermost
FROM traceq_calls(traceq_names('f'), traceq_names('S'))
ORDER BY ts;
