-- Advice on given queries: what pays is proposed with a reason, what does not says why.
SELECT table_name, definition, decision, reason, cost_after < cost_before AS cheaper, query_numbers
  FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42']) WHERE decision = 'propose';
SELECT table_name, definition ~ 'USING btree \((tenant_id, )?placed_at( DESC)?\)' AS in_order, decision, query_numbers
  FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE tenant_id = 3 ORDER BY placed_at DESC LIMIT 5']) WHERE decision = 'propose';
-- an index that exists already is not proposed again
SELECT decision, reason FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE id = 42']) WHERE decision = 'propose';
-- no budget, no index
SELECT count(*) FILTER (WHERE decision = 'propose') AS proposed, count(*) FILTER (WHERE reason = 'budget') > 0 AS says_budget
  FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42'], storage_budget => 1000);
-- a query that no index helps
SELECT count(*) AS proposed FROM indexpilot.advise(ARRAY['SELECT count(*) FROM shop.orders WHERE total >= 0 AND note IS NOT NULL']) WHERE decision = 'propose';
-- the whole set stays within the budget
SELECT sum(estimated_bytes) <= 3000000 AS within_budget, count(*) > 0 AS some
  FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42', 'SELECT * FROM shop.customers WHERE email = ''user7@example.org''',
                               'SELECT * FROM shop.orders WHERE placed_at > ''2024-03-10'''], storage_budget => 3000000) WHERE decision = 'propose';
-- the budget as a share of the tables
SET indexpilot.select_storage_share = 0.001;
SELECT count(*) AS proposed FROM indexpilot.advise(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42']) WHERE decision = 'propose';
RESET indexpilot.select_storage_share;
-- what more storage buys: never more than the budget, and never dearer
SELECT storage_budget, estimated_bytes <= storage_budget AS within, round(relative_cost::numeric, 1) AS relative_cost, cardinality(indexes) AS indexes, gap
  FROM indexpilot.advise_frontier(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42', 'SELECT * FROM shop.customers WHERE email = ''user7@example.org'''],
                                  budgets => ARRAY[5000000, 1000, 1500000]);
SELECT count(*) AS points, bool_and(falls) AS falls, max(planner_calls) < 20 AS few_calls, max(cardinality(indexes)) AS indexes
  FROM (SELECT *, COALESCE(cost_after <= lag(cost_after) OVER (ORDER BY storage_budget), true) AS falls
          FROM indexpilot.advise_frontier(ARRAY['SELECT * FROM shop.orders WHERE customer_id = 42', 'SELECT * FROM shop.customers WHERE email = ''user7@example.org'''])) f;
SELECT cardinality(indexes) AS indexes, indexes[1] ~ '^CREATE INDEX CONCURRENTLY ip_customers_email_' AS statement
  FROM indexpilot.advise_frontier(ARRAY['SELECT * FROM shop.customers WHERE email = ''user7@example.org'''], budgets => ARRAY[5000000]);
SELECT count(*) AS actions FROM indexpilot.actions;
