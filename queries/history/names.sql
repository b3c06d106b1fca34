-- The names of all ops and kernels that some captures have.
SELECT DISTINCT kind, name
FROM (
  SELECT 'op' AS kind, op AS name, capture FROM ops
  UNION ALL
  SELECT 'kernel', kernel, capture FROM kernels
) JOIN captures USING (capture)
WHERE under = $under AND within = $within AND list_contains($runs, run)
ORDER BY kind, name;
