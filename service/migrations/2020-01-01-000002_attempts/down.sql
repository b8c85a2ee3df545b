DROP INDEX idempotency_attempt;
