-- short overlaps long, which lasts longer and so keeps its place: short leaves with leaf below it.
-- alone and beside overlap with nothing around them. across overlaps within, on second's lane.
INCLUDE PERFETTO MODULE traceq.adopted;
SELECT s.name, p.name AS parent, s.parent_id AS parent_on_its_lane
FROM traceq_adopted a JOIN slice s ON s.id = a.id JOIN slice p ON p.id = a.parent_id
ORDER BY s.ts;
