-- k2 has an arrow, which tells before the number of the op does. Two ops have k3's number; 0 is no
-- number; 8 is no op's.
INCLUDE PERFETTO MODULE traceq.launches;
SELECT a.name AS activity, l.name AS launch, x.via, x.delay
FROM traceq_launches x JOIN slice a ON a.id = x.activity_id JOIN slice l ON l.id = x.launch_id
ORDER BY a.ts;
