-- Run in a transaction. nomnom.cutoff: earlier entries remain in the existing table, which becomes a partition.
LOCK TABLE nomnom_audit IN ACCESS EXCLUSIVE MODE;

ALTER TABLE nomnom_audit RENAME TO nomnom_audit_before;
ALTER INDEX nomnom_audit_message RENAME TO nomnom_audit_before_message;
ALTER INDEX nomnom_audit_run RENAME TO nomnom_audit_before_run;
ALTER INDEX nomnom_audit_at RENAME TO nomnom_audit_before_at;
ALTER INDEX nomnom_audit_undoes RENAME TO nomnom_audit_before_undoes;

-- Identity columns of partitioned tables need PostgreSQL 17.
ALTER TABLE nomnom_audit_before ALTER COLUMN id DROP IDENTITY;
ALTER TABLE nomnom_audit_before DROP CONSTRAINT nomnom_audit_pkey, DROP CONSTRAINT nomnom_audit_event_key;
CREATE SEQUENCE nomnom_audit_id AS bigint;
SELECT setval('nomnom_audit_id', coalesce(max(id), 0) + 1, false) FROM nomnom_audit_before;

-- Operations on messages and streams, by people and by the housekeeper. Outlives dead letters and streams.
CREATE TABLE nomnom_audit (
    id         bigint NOT NULL DEFAULT nextval('nomnom_audit_id'),
    -- Made by the program that acted: an entry written again after an interruption remains one entry.
    event      uuid NOT NULL,
    -- One command: all entries of a replay of many dead letters share it.
    run        uuid NOT NULL,
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    action     text NOT NULL CONSTRAINT nomnom_audit_action_check CHECK (
        action IN ('replay', 'undo', 'delete', 'purge', 'expire', 'pause', 'resume')
    ),
    -- Null if it concerns a stream or consumer, many messages, or a dead letter without a valid ID.
    message_id uuid,
    entity     text NOT NULL,
    sequence   bigint,
    result     text NOT NULL,
    -- The event that this one undid.
    undoes     uuid,
    detail     jsonb NOT NULL DEFAULT '{}'
) PARTITION BY RANGE (at);
ALTER SEQUENCE nomnom_audit_id OWNED BY nomnom_audit.id;

CREATE UNIQUE INDEX nomnom_audit_event ON nomnom_audit (event, at);
CREATE INDEX nomnom_audit_by_id ON nomnom_audit (id);
CREATE INDEX nomnom_audit_message ON nomnom_audit (message_id, id);
CREATE INDEX nomnom_audit_run ON nomnom_audit (run, id);
CREATE INDEX nomnom_audit_at ON nomnom_audit (at DESC);
CREATE INDEX nomnom_audit_undoes ON nomnom_audit (undoes) WHERE undoes IS NOT NULL;

DO $$
DECLARE
    role text;
BEGIN
    FOR role IN
        SELECT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END
        FROM pg_class, aclexplode(relacl)
        WHERE oid = 'nomnom_audit_before'::regclass AND grantee <> relowner AND privilege_type = 'INSERT'
    LOOP
        EXECUTE format('GRANT USAGE ON SEQUENCE nomnom_audit_id TO %s', role);
    END LOOP;
END;
$$;
