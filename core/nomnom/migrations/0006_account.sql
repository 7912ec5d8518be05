-- The account of each incarnation of the stream MESSAGES: what became of every sequence after its base.
CREATE TABLE nomnom_account (
    incarnation integer PRIMARY KEY REFERENCES nomnom_streams,
    -- The last sequence outside of the account: 0, unless an earlier version accepted messages.
    base        bigint NOT NULL,
    -- The last sequence known; what a stream that was deleted had assigned.
    last        bigint NOT NULL,
    -- When the account began.
    since       timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When its open blocks, and all dead letters, were verified last.
    verified_at timestamptz,
    dead_letters_verified_at timestamptz
);

-- Blocks of 1,024 sequences without a pending message. A block is named by its positions without the last 10 bits.
CREATE TABLE nomnom_account_blocks (
    block       bigint PRIMARY KEY,
    -- Rows of message_status and nomnom_sequences, including those that were dropped at the end of their retention.
    messages    integer NOT NULL,
    copies      integer NOT NULL,
    -- Rows more than positions: a segment's messages have one position, and some positions are in both tables.
    doubles     integer NOT NULL,
    -- Sequences that were unexplained when the block was closed.
    lost        integer NOT NULL,
    verified_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX nomnom_account_blocks_verified ON nomnom_account_blocks (verified_at);

-- Rows that were dropped at the end of their retention: their absence is no loss.
CREATE TABLE nomnom_account_retired (
    block    bigint NOT NULL,
    -- The partition of message_status, or nomnom_sequences.
    source   text NOT NULL,
    messages integer NOT NULL,
    copies   integer NOT NULL,
    -- Rows more than positions.
    doubles  integer NOT NULL DEFAULT 0,
    -- The bounds of received_at of the partition.
    low      timestamptz,
    high     timestamptz,
    PRIMARY KEY (block, source)
);

-- What nothing stored explains: losses.
CREATE TABLE nomnom_unexplained (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- sequence: neither in the stream nor in a table. rows: a segment has fewer rows than messages. dead letter: a row has
    -- the status dlq, but its dead letter does not exist. pending: a row is not finished, but its message is not in the stream.
    kind        text NOT NULL CHECK (kind IN ('sequence', 'rows', 'dead letter', 'pending')),
    -- Positions, both included; equal unless consecutive sequences are lost.
    low         bigint NOT NULL,
    high        bigint NOT NULL,
    -- Fewer than the positions if it is not known which of them are lost; the missing rows of a segment.
    messages    bigint NOT NULL,
    message_id  uuid,
    noticed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- When an explanation was found after all.
    resolved_at timestamptz
);
CREATE INDEX nomnom_unexplained_open ON nomnom_unexplained (kind, low) WHERE resolved_at IS NULL;

-- How many messages came with this one: it says the size of its segment (nomnom.segments).
CREATE FUNCTION nomnom_segment_size(message_id uuid) RETURNS integer
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
RETURN CASE WHEN get_byte(uuid_send(message_id), 6) >> 4 = 8
    THEN ((get_byte(uuid_send(message_id), 14) & 3) << 8 | get_byte(uuid_send(message_id), 15)) + 1
    ELSE 1 END;

-- Drop a partition. The numbers of its rows by block are kept for the account: they are counted before any lock is taken.
CREATE FUNCTION nomnom_drop_partition(parent text, name text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT SET lock_timeout = '40ms' AS $$
DECLARE
    dropped    record;
    unfinished boolean := false;
BEGIN
    SELECT given.low, given.high INTO dropped
    FROM nomnom_partitions(parent) AS given WHERE given.name = $2 AND NOT is_default;
    IF NOT FOUND OR parent NOT IN ('message_status', 'nomnom_audit', 'nomnom_archive') THEN
        RAISE EXCEPTION '% is not a partition of %', name, parent;
    END IF;
    IF parent = 'message_status' THEN
        EXECUTE format(
            'INSERT INTO nomnom_account_retired (block, source, messages, copies, doubles, low, high)
             SELECT stream_position >> 10, $1, count(*), 0, count(*) - count(DISTINCT stream_position), $2, $3
             FROM %I JOIN nomnom_account ON incarnation = stream_position >> 48
             WHERE stream_position > 0 AND stream_position > (incarnation::bigint << 48 | base)
             GROUP BY stream_position >> 10
             ON CONFLICT (block, source) DO UPDATE SET
                 messages = nomnom_account_retired.messages + excluded.messages,
                 doubles = nomnom_account_retired.doubles + excluded.doubles', name
        ) USING name, dropped.low, dropped.high;
    END IF;
    EXECUTE format('ALTER TABLE %I DETACH PARTITION %I', parent, name);
    -- Checked when no one can write to it any more.
    IF parent = 'message_status' THEN
        EXECUTE format(
            'SELECT EXISTS (
                 SELECT FROM %I WHERE status <> ''completed'' AND status IN (''processing'', ''failed'', ''dlq'')
             )', name
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
    ), kept AS (
        INSERT INTO nomnom_account_retired (block, source, messages, copies)
        SELECT position >> 10, 'nomnom_sequences', 0, count(*)
        FROM pruned JOIN nomnom_account ON incarnation = position >> 48
        WHERE position > (incarnation::bigint << 48 | base)
        GROUP BY position >> 10
        ON CONFLICT (block, source) DO UPDATE SET copies = nomnom_account_retired.copies + excluded.copies
    )
    SELECT count(*)::integer FROM pruned;
END;

REVOKE ALL ON FUNCTION nomnom_drop_partition, nomnom_prune_sequences FROM PUBLIC;
