-- Run in the transaction of the swap, after it: grants, and the existing table as the first partition.
-- nomnom.table: the partitioned table. nomnom.cutoff: as in the swap.
DO $$
DECLARE
    parent text := current_setting('nomnom.table');
    former text := parent || '_before';
    held   record;
    filled boolean;
BEGIN
    FOR held IN
        SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
        FROM pg_class, aclexplode(relacl)
        WHERE oid = to_regclass(former) AND grantee <> relowner
    LOOP
        EXECUTE format('GRANT %s ON %I TO %s', held.privilege_type, parent, held.role);
    END LOOP;
    EXECUTE format('SELECT EXISTS (SELECT FROM %I)', former) INTO filled;
    IF filled THEN
        EXECUTE format(
            'ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (MINVALUE) TO (%L)',
            parent, former, current_setting('nomnom.cutoff')
        );
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', former, former || '_cutoff');
    ELSE
        EXECUTE format('DROP TABLE %I', former);
    END IF;
    EXECUTE format('CREATE TABLE %I PARTITION OF %I DEFAULT', parent || '_default', parent);
END;
$$;
