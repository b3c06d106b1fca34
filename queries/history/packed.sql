-- The captures of some runs under the scopes and limits of time that are asked for, in the runs' order.
SELECT packed, path, sha256, under
FROM captures
WHERE list_contains($runs, run) AND under = $under AND within = $within
ORDER BY list_position($runs, run), place;
