-- The runs of those captures that are recorded already under the scopes and limits of time.
SELECT content, run
FROM captures
WHERE list_contains($contents, content) AND under = $under AND within = $within;
