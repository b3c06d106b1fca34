INCLUDE PERFETTO MODULE traceq.activities;

-- Which CPU call launched which GPU activity (kernel, copy or set): the activities of
-- traceq_activities whose launch is known.
CREATE OR REPLACE PERFETTO TABLE traceq_launches(
  -- Id of the GPU activity's slice (slice.id).
  activity_id LONG,
  -- Id of the runtime or driver call, or of the op (slice.id).
  launch_id LONG,
  -- What joins the two: correlation, flow or external id.
  via STRING,
  -- (ns) From the start of the launching call to the start of the activity.
  delay LONG
)
AS
SELECT id AS activity_id, launch_id, via, delay
FROM _traceq_launched
WHERE launch_id IS NOT NULL;
