-- The genome: bootstrap, expression by tenant, and taking it back.
SELECT indexpilot.bootstrap_genome_catalog() > 0 AS found;
SELECT indexpilot.bootstrap_genome_catalog() AS found_again;
SELECT field_name, field_type, required, tenant_key FROM indexpilot.get_genome_fields('shop.customers');
SELECT indexpilot.disable_field('t1', 'shop.customers', 'nickname', 'never used') > 0 AS logged;
SELECT field_name, enabled, reason FROM indexpilot.get_tenant_fields('t1') WHERE table_name = 'customers' AND NOT enabled;
SELECT mutation, cause, tenant_id, field_name, before, after, undo FROM indexpilot.get_recent_mutations(1);
SELECT statement, effect FROM indexpilot.rollback_preview((SELECT max(id) FROM indexpilot.mutation_log));
SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log)) > 0 AS rolled_back;
SELECT field_name, enabled FROM indexpilot.get_tenant_fields('t1') WHERE field_name = 'nickname';
SELECT indexpilot.rollback((SELECT max(id) FROM indexpilot.mutation_log WHERE mutation = 'disable_field')) > 0;
-- a field that no tenant expresses gets no index
SELECT indexpilot.initialize_tenant_expression('t1') > 0 AS initialised;
SELECT indexpilot.disable_field('t1', 'shop.customers', 'nickname', 'never used') > 0 AS disabled;
SELECT decision, reason FROM indexpilot.advise(ARRAY['SELECT * FROM shop.customers WHERE nickname = ''nick7''']);
SELECT indexpilot.enable_field('t1', 'shop.customers', 'nickname') > 0 AS enabled;
SELECT decision, reason FROM indexpilot.advise(ARRAY['SELECT * FROM shop.customers WHERE nickname = ''nick7''']) WHERE decision = 'propose';
SELECT mutation, count FROM indexpilot.get_mutation_summary() ORDER BY mutation COLLATE "C";
