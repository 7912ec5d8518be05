-- The incarnations of streams: one that is deleted and created again counts its sequences from 1 again.
CREATE TABLE nomnom_streams (
    incarnation integer PRIMARY KEY,
    stream      text NOT NULL,
    -- As JetStream reports it.
    created     timestamptz NOT NULL,
    UNIQUE (stream, created)
);

-- The content that each Idempotency-Key stands for. A message with a key may come again with another received_at.
CREATE TABLE nomnom_keys (
    message_id      uuid PRIMARY KEY,
    -- Null for a message of an earlier version: its content is not known.
    digest          text,
    -- Of the message's status row.
    received_at     timestamptz NOT NULL,
    stream_position bigint NOT NULL
);
CREATE INDEX nomnom_keys_received ON nomnom_keys USING brin (received_at) WITH (autosummarize = on);

-- Copies in the stream other than the original, whose own position a status row does not hold.
CREATE TABLE nomnom_sequences (
    position   bigint PRIMARY KEY,
    message_id uuid NOT NULL,
    kind       text NOT NULL CHECK (kind IN ('replay', 'repeat', 'undone', 'deleted', 'purged', 'expired')),
    at         timestamptz NOT NULL DEFAULT statement_timestamp()
);
CREATE INDEX nomnom_sequences_message ON nomnom_sequences (message_id);

-- The position of the original message: what orders messages. 0 for a message of an earlier version.
ALTER TABLE message_status ADD COLUMN stream_position bigint NOT NULL DEFAULT 0;
ALTER TABLE message_status DROP CONSTRAINT message_status_status_check;
ALTER TABLE message_status ADD CONSTRAINT message_status_status_check CHECK (
    status IN ('processing', 'completed', 'failed', 'dlq', 'deleted', 'purged', 'expired')
) NOT VALID;

-- Partitions of a table by time, one for each UTC day or month. The functions run with the rights of the tables' owner,
-- so that no other role needs them. A lock that is not available at once is not waited for: writers would queue.
CREATE FUNCTION nomnom_partition_key(parent text) RETURNS text LANGUAGE sql STABLE
RETURN (
    SELECT attribute.attname::text
    FROM pg_partitioned_table AS partitioned
    JOIN pg_attribute AS attribute
      ON attribute.attrelid = partitioned.partrelid AND attribute.attnum = partitioned.partattrs[0]
    WHERE partitioned.partrelid = to_regclass(parent)
);

CREATE FUNCTION nomnom_partitions(parent text)
RETURNS TABLE (name text, low timestamptz, high timestamptz, is_default boolean) LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT class.relname::text,
           nullif((regexp_match(bound, 'FROM \(''?([^'')]+)'))[1], 'MINVALUE')::timestamptz,
           nullif((regexp_match(bound, 'TO \(''?([^'')]+)'))[1], 'MAXVALUE')::timestamptz,
           bound = 'DEFAULT'
    FROM pg_inherits
    JOIN pg_class AS class ON class.oid = inhrelid
    CROSS JOIN LATERAL pg_get_expr(class.relpartbound, class.oid) AS bound
    WHERE inhparent = to_regclass(parent);
END;

CREATE FUNCTION nomnom_add_partition(parent text, low timestamptz, high timestamptz) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '40ms' SET timezone = 'UTC' AS $$
DECLARE
    name text := parent || '_' || to_char(low, 'YYYYMMDD');
    key  text := nomnom_partition_key(parent);
BEGIN
    IF parent NOT IN ('message_status', 'nomnom_audit', 'nomnom_archive') THEN
        RAISE EXCEPTION 'table % has no partitions by time', parent;
    END IF;
    EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', name, parent);
    -- Rows with a time for which there was no partition yet.
    EXECUTE format(
        'WITH moved AS (DELETE FROM %I WHERE %I >= $1 AND %I < $2 RETURNING *) INSERT INTO %I SELECT * FROM moved',
        parent || '_default', key, key, name
    ) USING low, high;
    EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, name, low, high);
    RETURN name;
END;
$$;

REVOKE ALL ON FUNCTION nomnom_add_partition FROM PUBLIC;
