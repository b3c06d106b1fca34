-- The workloads (JSON) of the captures under the scopes and limits of time, each once.
SELECT DISTINCT workload
FROM captures
WHERE under = $under AND within = $within AND list_contains($runs, run) AND workload IS NOT NULL
ORDER BY workload;
