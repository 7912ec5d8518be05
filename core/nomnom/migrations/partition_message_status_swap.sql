-- Run in a transaction. nomnom.cutoff: rows received earlier remain in the existing table, which becomes a partition.
-- nomnom.since: when the preparation began.
LOCK TABLE message_status IN ACCESS EXCLUSIVE MODE;

INSERT INTO nomnom_keys (message_id, received_at, stream_position)
SELECT message_id, received_at, stream_position
FROM message_status
WHERE processed_at >= current_setting('nomnom.since')::timestamptz AND get_byte(uuid_send(message_id), 6) >> 4 = 5
ON CONFLICT DO NOTHING;

ALTER TABLE message_status RENAME TO message_status_before;
ALTER INDEX message_status_pkey RENAME TO message_status_before_pkey;
ALTER INDEX message_status_received RENAME TO message_status_before_received;
ALTER INDEX message_status_unfinished RENAME TO message_status_before_unfinished;
ALTER INDEX message_status_processed RENAME TO message_status_before_processed;

-- One row per message, written by the worker in the transaction that writes its data or records its failure.
CREATE TABLE message_status (
    message_id      uuid NOT NULL,
    entity_type     text NOT NULL,
    status          text NOT NULL CONSTRAINT message_status_status_check CHECK (
        status IN ('processing', 'completed', 'failed', 'dlq', 'deleted', 'purged', 'expired')
    ),
    received_at     timestamptz NOT NULL,
    processed_at    timestamptz,
    retry_count     integer NOT NULL DEFAULT 0,
    error_message   text,
    superseded      boolean NOT NULL DEFAULT false,
    replays         integer NOT NULL DEFAULT 0,
    stream_position bigint NOT NULL DEFAULT 0
) PARTITION BY RANGE (received_at);

CREATE UNIQUE INDEX message_status_identity ON message_status (message_id, received_at);
CREATE INDEX message_status_received ON message_status (received_at DESC, message_id DESC);
-- All but completed messages: few rows, so a small index.
CREATE INDEX message_status_unfinished ON message_status (status, received_at DESC) WHERE status <> 'completed';
CREATE INDEX message_status_processed ON message_status (processed_at);
CREATE INDEX message_status_position ON message_status (stream_position) WHERE stream_position > 0;
CREATE INDEX message_status_superseded ON message_status (received_at) WHERE superseded;
