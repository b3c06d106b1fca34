-- d, e and y begin as the first scope ends. h overlaps g, j overlaps i, q overlaps p: each lies on
-- a lane of its own. The scope at 650 does as well, below n.
INCLUDE PERFETTO MODULE traceq.under;
INCLUDE PERFETTO MODULE traceq.names;
SELECT u.name, u.category, u.ts, u.dur, s.ts AS scope_ts, p.name AS parent
FROM traceq_under(traceq_names('S')) u
JOIN slice s ON s.id = u.scope_id
LEFT JOIN slice p ON p.id = u.parent_id
ORDER BY scope_ts, u.ts, u.name;
