-- l overlaps b and lies on another lane, below S. y and the call in it begin on that lane as l ends.
INCLUDE PERFETTO MODULE traceq.stacks;
SELECT s.name, p.name AS parent, s.calls, s.total, s.self
FROM traceq_stacks s LEFT JOIN traceq_stacks p ON p.id = s.parent_id
WHERE s.category != 'kernel'
ORDER BY s.name, parent;
