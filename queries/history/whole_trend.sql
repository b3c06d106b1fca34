-- The scopes as a whole in every capture: how many, their CPU time and their GPU time (ns).
SELECT run, scopes AS calls, cpu AS total, gpu
FROM captures
WHERE under = $under AND within = $within AND list_contains($runs, run)
ORDER BY run, place;
