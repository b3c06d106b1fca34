-- g overlaps f and lies on a lane of its own, with h below it. Nothing is taken from S for g.
INCLUDE PERFETTO MODULE traceq.stacks;
SELECT s.name, p.name AS parent, s.calls, s.total, s.self
FROM traceq_stacks s LEFT JOIN traceq_stacks p ON p.id = s.parent_id
ORDER BY s.name, parent;
