-- How a row of a comparison is named: by its calls and times (ns) on both sides.
--
-- A row with as many calls as before is shifted where its total moved by large ns, or by small ns
-- with its average call moved by factor.
CREATE OR REPLACE MACRO row_status(
  calls_before, calls_after, total_before, total_after, small, large, factor
) AS
CASE
  WHEN calls_before IS NULL THEN 'added'
  WHEN calls_after IS NULL THEN 'removed'
  WHEN calls_after != calls_before THEN 'changed'
  WHEN
    abs(total_after - total_before) >= large
    OR (
      abs(total_after - total_before) >= small
      AND greatest(total_after, total_before) > factor * least(total_after, total_before)
    )
    THEN 'shifted'
  ELSE 'same'
END;

-- The same for an op: shifted as well where its GPU time moved, by the same rule.
CREATE OR REPLACE MACRO op_status(b, a, small, large, gpu_small, gpu_large, factor) AS
CASE
  WHEN row_status(b.calls, a.calls, b.total, a.total, small, large, factor) != 'same'
    THEN row_status(b.calls, a.calls, b.total, a.total, small, large, factor)
  ELSE row_status(b.calls, a.calls, b.gpu_total, a.gpu_total, gpu_small, gpu_large, factor)
END;

-- The order in which rows are shown.
CREATE OR REPLACE MACRO status_rank(status) AS
list_position(['changed', 'shifted', 'added', 'removed', 'same'], status);
