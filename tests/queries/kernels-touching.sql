-- l overlaps b and lies on another lane, below S. y begins on that lane as l ends: it outlasts S, so
-- the call in it is not below l or S.
INCLUDE PERFETTO MODULE traceq.kernels;
SELECT k.name, s.name AS scope FROM traceq_kernels('["S"]') k JOIN slice s ON s.id = k.scope_id;
