-- An attempt that is undone gives its key back: it is found by the attempt.
CREATE INDEX idempotency_attempt ON idempotency (attempt) WHERE state <> 'done';
