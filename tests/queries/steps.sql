-- The step at 40 carries no category: it is a label of the CPU all the same.
INCLUDE PERFETTO MODULE traceq.steps;
SELECT p.step, p.ts, p.dur, s.name FROM traceq_steps p JOIN slice s ON s.id = p.id ORDER BY p.ts;
