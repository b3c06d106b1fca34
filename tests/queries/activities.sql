-- The label on the GPU's track and the mark of the synchronisation are no work of the GPU.
INCLUDE PERFETTO MODULE traceq.activities;
SELECT a.name, a.category, a.ts, a.dur, a.device, a.stream, l.name AS launch, a.via, a.delay
FROM traceq_activities a LEFT JOIN slice l ON l.id = a.launch_id
ORDER BY a.ts;
