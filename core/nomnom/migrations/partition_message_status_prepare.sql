-- Run one by one, outside a transaction, while workers write: what the swap needs, so that it takes a moment only.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS message_status_before_identity ON message_status (message_id, received_at);

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_status_before_position
    ON message_status (stream_position) WHERE stream_position > 0;

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_status_before_superseded ON message_status (received_at) WHERE superseded;

ALTER TABLE message_status VALIDATE CONSTRAINT message_status_status_check;

-- Version 5: the messages with an Idempotency-Key.
INSERT INTO nomnom_keys (message_id, received_at, stream_position)
SELECT message_id, received_at, stream_position FROM message_status WHERE get_byte(uuid_send(message_id), 6) >> 4 = 5
ON CONFLICT DO NOTHING;
