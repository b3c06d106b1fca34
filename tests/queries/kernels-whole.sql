INCLUDE PERFETTO MODULE traceq.kernels;
SELECT k.name, k.category, k.ts, k.dur, l.name AS launch, k.scope_id, k.is_backward, k.delay
FROM traceq_kernels(NULL) k LEFT JOIN slice l ON l.id = k.launch_id
ORDER BY k.ts;
