INCLUDE PERFETTO MODULE traceq.under;
SELECT name, category, ts, dur, scope_id FROM traceq_under(NULL) ORDER BY ts;
