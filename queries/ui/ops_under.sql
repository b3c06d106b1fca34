-- Calls and time of each op below the scopes, for ui.perfetto.dev and other engines
-- without the package `traceq`: as the engine has the slices, so those that overlap another of their
-- thread without nesting are below nothing, and addresses and instance numbers are not folded.
SELECT s.name, COUNT(*) AS calls, SUM(s.dur) AS total, AVG(s.dur) AS average
FROM slice s
WHERE EXISTS (SELECT 1 FROM ancestor_slice(s.id) a WHERE $is_scope)
GROUP BY s.name
ORDER BY total DESC;
