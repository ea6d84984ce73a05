-- PUBLIC may do nothing. Members of pg_monitor may read; who may act is for the DBA to say, with GRANT EXECUTE.
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA indexpilot FROM PUBLIC;
REVOKE ALL ON ALL PROCEDURES IN SCHEMA indexpilot FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA indexpilot FROM PUBLIC;
REVOKE ALL ON SCHEMA indexpilot FROM PUBLIC;
GRANT USAGE ON SCHEMA indexpilot TO pg_monitor;
GRANT SELECT ON genome_catalog, expression_profile, analyses, recommendations, actions, managed_indexes,
    protected_indexes, verifications, mutation_log, control, switch, queries, query_stats, workload_samples,
    workload_imports, status TO pg_monitor;
GRANT SELECT ON workload_profile, workload_table, workload_field, table_usage, field_uses, field_usage TO pg_monitor;
GRANT EXECUTE ON FUNCTION check_table(pg_catalog.regclass), check_field(pg_catalog.regclass, name), get_field_usage_stats(pg_catalog.regclass, name),
    get_table_size_info(pg_catalog.regclass) TO pg_monitor;
GRANT EXECUTE ON FUNCTION get_genome_fields(pg_catalog.regclass), get_tenant_fields(text),
    get_recent_mutations(integer, pg_catalog.regclass), get_mutation_summary(interval), system_status(), get_system_status(),
    histogram_add(bigint[], bigint[]), histogram_percentile(bigint[], double precision), histogram_sum(bigint[]),
    may_see(oid, text), get_query_stats(interval, text, pg_catalog.regclass, integer) TO pg_monitor;
GRANT EXECUTE ON FUNCTION get_explain_usage_stats() TO pg_monitor;
GRANT SELECT ON query_verdicts, query_advice TO pg_monitor;
