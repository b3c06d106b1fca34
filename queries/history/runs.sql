-- All runs: when the first capture was made, when they were recorded, labels as a list of pairs, captures, the patterns of their
-- scopes, paths, the pairs of patterns and limits of time.
SELECT
  run,
  min(captured),
  recorded,
  coalesce((SELECT list((key, value) ORDER BY key) FROM labels WHERE labels.run = runs.run), []),
  count(*),
  list(DISTINCT under ORDER BY under),
  list(path ORDER BY place),
  list(DISTINCT (under, within) ORDER BY (under, within))
FROM runs JOIN captures USING (run)
GROUP BY run, recorded
ORDER BY run;
