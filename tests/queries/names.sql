INCLUDE PERFETTO MODULE traceq.names;
SELECT 1 AS row, 'aten::add*' AS pattern, traceq_names('aten::add*') AS names
UNION ALL SELECT 2, '*add', traceq_names('*add')
UNION ALL SELECT 3, 'add', traceq_names('add')
UNION ALL SELECT 4, 'aten::???', traceq_names('aten::???')
UNION ALL SELECT 5, '[aA]ten::add', traceq_names('[aA]ten::add')
UNION ALL SELECT 6, 'it*', traceq_names('it*')
UNION ALL SELECT 7, 'gr*', traceq_names('gr*')
ORDER BY row;
