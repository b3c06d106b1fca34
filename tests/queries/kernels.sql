-- k3 and copy run after the scope has ended, k2 during it but launched by another thread.
INCLUDE PERFETTO MODULE traceq.kernels;
INCLUDE PERFETTO MODULE traceq.names;
SELECT k.name, k.category, k.ts, k.dur, l.name AS launch, s.name AS scope, k.delay
FROM traceq_kernels(traceq_names('S')) k
JOIN slice l ON l.id = k.launch_id
JOIN slice s ON s.id = k.scope_id
ORDER BY k.ts;
