-- k1 is launched in the first S, k2 by the backward pass of what is in it. k3 is launched in an S of
-- its own, during that backward pass. k4 is launched by the backward pass of add, outside of S.
INCLUDE PERFETTO MODULE traceq.kernels;
SELECT k.name, k.dur, k.device, k.stream, s.ts AS scope_ts, k.is_backward, k.delay
FROM traceq_kernels('["S"]') k JOIN slice s ON s.id = k.scope_id
ORDER BY k.ts;
