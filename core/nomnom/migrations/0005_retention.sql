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
    position    bigint NOT NULL,
    message_id  uuid NOT NULL,
    entity      text NOT NULL,
    received_at timestamptz NOT NULL,
    replays     integer NOT NULL,
    PRIMARY KEY (position, message_id)
);

CREATE INDEX nomnom_sequences_at ON nomnom_sequences USING brin (at) WITH (autosummarize = on);

ALTER TABLE nomnom_audit DROP CONSTRAINT nomnom_audit_action_check;
ALTER TABLE nomnom_audit ADD CONSTRAINT nomnom_audit_action_check CHECK (
    action IN ('replay', 'undo', 'delete', 'purge', 'expire', 'pause', 'resume')
) NOT VALID;
