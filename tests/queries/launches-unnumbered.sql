-- k1 and k2 have no number at all; the others have that of an op.
INCLUDE PERFETTO MODULE traceq.launches;
SELECT a.name AS activity, l.name AS launch, x.via, x.delay
FROM traceq_launches x JOIN slice a ON a.id = x.activity_id JOIN slice l ON l.id = x.launch_id
ORDER BY a.ts;
