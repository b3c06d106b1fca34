INCLUDE PERFETTO MODULE traceq.under;
SELECT COUNT(*) AS slices FROM traceq_under('[]');
