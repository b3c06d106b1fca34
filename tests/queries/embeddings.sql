INCLUDE PERFETTO MODULE traceq.embeddings;
SELECT ts, dims FROM traceq_embeddings;
