-- Both processes have a call of number 7: only the arrow of k2 tells whose it is. Of two calls of
-- one process with one number it is the first.
INCLUDE PERFETTO MODULE traceq.launches;
SELECT a.name AS activity, l.name AS launch, x.via, x.delay
FROM traceq_launches x JOIN slice a ON a.id = x.activity_id JOIN slice l ON l.id = x.launch_id
ORDER BY a.ts;
