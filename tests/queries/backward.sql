-- An arrow tells before a number does. Of the ops with number 6 the last made the graph's node. Two
-- threads have number 8, number 9 comes after its backward pass, and -1 is no number.
INCLUDE PERFETTO MODULE traceq.backward;
SELECT i.name, o.name AS forward, b.via
FROM traceq_backward b JOIN slice i ON i.id = b.id JOIN slice o ON o.id = b.forward_id
ORDER BY i.ts;
