INCLUDE PERFETTO MODULE traceq.modules;
SELECT * FROM traceq_modules;
