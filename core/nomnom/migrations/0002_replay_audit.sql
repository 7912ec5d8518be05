-- What people did to dead letters. It survives the letters, and the streams.
CREATE TABLE nomnom_audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    action     text NOT NULL CHECK (action IN ('replay', 'undo', 'delete')),
    message_id uuid NOT NULL,
    entity     text NOT NULL,
    sequence   bigint NOT NULL,
    result     text NOT NULL,
    detail     jsonb NOT NULL DEFAULT '{}'
);

CREATE INDEX nomnom_audit_message ON nomnom_audit (message_id, id);
CREATE INDEX nomnom_audit_at ON nomnom_audit (at DESC);
