-- No runtime calls were recorded: k1 is launched by the scope itself, k2 by its backward op itself,
-- k4 by an op below that. k3 is launched by a scope of its own.
INCLUDE PERFETTO MODULE traceq.kernels;
SELECT k.name, s.ts AS scope_ts, k.is_backward, k.delay
FROM traceq_kernels('["mul"]') k JOIN slice s ON s.id = k.scope_id
ORDER BY k.ts;
