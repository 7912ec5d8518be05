-- One row a message, written by the worker in the transaction that writes its data or marks its failure.
CREATE TABLE message_status (
    message_id    uuid PRIMARY KEY,
    entity_type   text NOT NULL,
    status        text NOT NULL CHECK (status IN ('processing', 'completed', 'failed', 'dlq')),
    received_at   timestamptz NOT NULL,
    processed_at  timestamptz,
    retry_count   integer NOT NULL DEFAULT 0,
    error_message text,
    -- Completed without effect: what a later message wrote was already there.
    superseded    boolean NOT NULL DEFAULT false,
    -- Which life of the message this row speaks of: 0 as it came in, n after its n-th replay.
    replays       integer NOT NULL DEFAULT 0
);

-- The newest messages, of all and of an hour.
CREATE INDEX message_status_received ON message_status (received_at DESC, message_id DESC);
-- The newest of a status other than completed, and their number: few rows, so a small index.
CREATE INDEX message_status_unfinished ON message_status (status, received_at DESC) WHERE status <> 'completed';
