INCLUDE PERFETTO MODULE traceq.shapes;
SELECT s.name, h.dims FROM traceq_shapes h JOIN slice s USING (id);
