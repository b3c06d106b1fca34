-- copy_ has made the nodes 6 to 8 and shows the first. No forward op is known to come after 10, or
-- before 4.
INCLUDE PERFETTO MODULE traceq.backward;
SELECT i.name, i.ts, o.name AS forward, b.via
FROM traceq_backward b JOIN slice i ON i.id = b.id JOIN slice o ON o.id = b.forward_id
ORDER BY i.ts;
