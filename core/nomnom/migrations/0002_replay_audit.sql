-- What people did to messages and streams. It survives the letters, and the streams.
CREATE TABLE nomnom_audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Made by the program that acted: an entry written again after a break stays one entry.
    event      uuid NOT NULL UNIQUE,
    -- One command of a person: all entries of a replay of many letters share it.
    run        uuid NOT NULL,
    at         timestamptz NOT NULL,
    actor      text NOT NULL,
    action     text NOT NULL CHECK (action IN ('replay', 'undo', 'delete', 'purge', 'pause', 'resume')),
    -- Null where a stream or consumer was acted on, or a letter that has no readable id.
    message_id uuid,
    entity     text NOT NULL,
    sequence   bigint,
    result     text NOT NULL,
    -- The event that this one undid.
    undoes     uuid,
    detail     jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX nomnom_audit_message ON nomnom_audit (message_id, id);
CREATE INDEX nomnom_audit_run ON nomnom_audit (run, id);
CREATE INDEX nomnom_audit_at ON nomnom_audit (at DESC);
CREATE INDEX nomnom_audit_undoes ON nomnom_audit (undoes) WHERE undoes IS NOT NULL;
