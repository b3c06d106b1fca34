-- f is called at the top once, and three times below S.
INCLUDE PERFETTO MODULE traceq.stacks;
SELECT s.name, p.name AS parent, s.category, s.calls, s.total, s.self, s.min, s.max
FROM traceq_stacks s LEFT JOIN traceq_stacks p ON p.id = s.parent_id
ORDER BY s.name, parent;
