-- Run one by one, outside a transaction, while entries are written: what the swap needs, so that it takes a moment only.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS nomnom_audit_before_event ON nomnom_audit (event, at);

CREATE INDEX CONCURRENTLY IF NOT EXISTS nomnom_audit_before_id ON nomnom_audit (id);

ALTER TABLE nomnom_audit VALIDATE CONSTRAINT nomnom_audit_action_check;
