-- How a row of a comparison is named: by its calls on both sides. Whether its time moved by more
-- than noise is no matter of a query.
CREATE OR REPLACE MACRO row_status(calls_before, calls_after) AS
CASE
  WHEN calls_before IS NULL THEN 'added'
  WHEN calls_after IS NULL THEN 'removed'
  WHEN calls_after != calls_before THEN 'changed'
  ELSE 'same'
END;

-- The order in which rows are shown.
CREATE OR REPLACE MACRO status_rank(status) AS
list_position(['changed', 'added', 'removed', 'same'], status);
