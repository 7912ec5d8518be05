-- Dead letters past their retention, by the month in which they were stored in the stream.
CREATE TABLE nomnom_archive (
    -- In the dead-letter stream.
    sequence    bigint NOT NULL,
    stored_at   timestamptz NOT NULL,
    -- Null for a dead letter without a valid ID.
    message_id  uuid,
    entity      text NOT NULL,
    received_at timestamptz NOT NULL,
    failed_at   timestamptz NOT NULL,
    reason      text NOT NULL,
    error       text NOT NULL,
    subject     text NOT NULL,
    headers     jsonb NOT NULL,
    payload     bytea NOT NULL,
    archived_at timestamptz NOT NULL
) PARTITION BY RANGE (stored_at);
-- A dead letter that is archived again after an interruption remains one row.
CREATE UNIQUE INDEX nomnom_archive_identity ON nomnom_archive (sequence, stored_at);
CREATE INDEX nomnom_archive_message ON nomnom_archive (message_id);
CREATE INDEX nomnom_archive_archived ON nomnom_archive USING brin (archived_at) WITH (autosummarize = on);
CREATE TABLE nomnom_archive_default PARTITION OF nomnom_archive DEFAULT;

-- Messages whose expiry has begun: their dead letters may exist while a worker completes them after all.
CREATE TABLE nomnom_expiring (
    -- In the message stream.
    position    bigint PRIMARY KEY,
    message_id  uuid NOT NULL,
    entity      text NOT NULL,
    received_at timestamptz NOT NULL,
    replays     integer NOT NULL
);

CREATE INDEX nomnom_sequences_at ON nomnom_sequences USING brin (at) WITH (autosummarize = on);

ALTER TABLE nomnom_audit DROP CONSTRAINT nomnom_audit_action_check;
ALTER TABLE nomnom_audit ADD CONSTRAINT nomnom_audit_action_check CHECK (
    action IN ('replay', 'undo', 'delete', 'purge', 'expire', 'pause', 'resume')
) NOT VALID;

-- As before, unless a row of the partition still matters: the check is made when no one can write to it any more.
CREATE OR REPLACE FUNCTION nomnom_drop_partition(parent text, name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '40ms' AS $$
DECLARE
    unfinished boolean := false;
BEGIN
    IF NOT EXISTS (SELECT FROM nomnom_partitions(parent) AS given WHERE given.name = $2 AND NOT is_default)
        OR parent NOT IN ('message_status', 'nomnom_audit', 'nomnom_archive')
    THEN
        RAISE EXCEPTION '% is not a partition of %', name, parent;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, name);
    IF parent = 'message_status' THEN
        EXECUTE format(
            'SELECT EXISTS (SELECT FROM %I WHERE status <> ''completed'' AND status IN (''processing'', ''failed'', ''dlq''))',
            name
        ) INTO unfinished;
    END IF;
    IF unfinished THEN
        RAISE EXCEPTION '% has rows of messages that are not finished', name USING ERRCODE = 'object_in_use';
    END IF;
    EXECUTE format('DROP TABLE %I', name);
END;
$$;

-- Delete at most this many rows of copies that were recorded before a time; returns their number.
CREATE FUNCTION nomnom_prune_sequences(before timestamptz, most integer) RETURNS integer
LANGUAGE sql SECURITY DEFINER SET search_path FROM CURRENT
BEGIN ATOMIC
    WITH pruned AS (
        DELETE FROM nomnom_sequences
        WHERE position IN (SELECT position FROM nomnom_sequences WHERE at < before LIMIT most)
        RETURNING position
    )
    SELECT count(*)::integer FROM pruned;
END;

REVOKE ALL ON FUNCTION nomnom_prune_sequences FROM PUBLIC;
