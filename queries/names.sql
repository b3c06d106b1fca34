-- The slice names that match a GLOB, as the JSON array that the other functions of this package
-- take. Matching is done once for each distinct name, not for each slice.
--
-- Example: INCLUDE PERFETTO MODULE traceq.ops;
-- SELECT * FROM traceq_ops(traceq_names('*GatedDeltaNet*'));
CREATE OR REPLACE PERFETTO FUNCTION traceq_names(
  -- GLOB over the whole name: * any text, ? one character, [a-z] one of; case matters.
  pattern STRING
)
-- JSON array of the names, '[]' where nothing matches.
RETURNS STRING
AS
SELECT json_group_array(name)
FROM (SELECT DISTINCT name FROM slice WHERE name GLOB $pattern ORDER BY name);
