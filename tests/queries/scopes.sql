-- Thread 3: the second S lies on a lane of its own below the first. Thread 4: S at 450 lies on
-- another lane below c, where nothing matches. Thread 5: S at 775 is two lanes away from its scope.
INCLUDE PERFETTO MODULE traceq.scopes;
INCLUDE PERFETTO MODULE traceq.names;
SELECT ts, dur, name FROM traceq_scopes(traceq_names('S*')) ORDER BY ts;
