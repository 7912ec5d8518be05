-- Messages by time of receipt and status, in steps of ten minutes: counting millions of rows for one screen is slow. The
-- housekeeper keeps the steps; a reader counts those again that changed since the last of them was counted.
CREATE TABLE nomnom_steps (
    step       timestamptz NOT NULL,
    status     text NOT NULL,
    messages   bigint NOT NULL,
    superseded bigint NOT NULL,
    counted_at timestamptz NOT NULL,
    PRIMARY KEY (step, status)
);
