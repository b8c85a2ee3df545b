DROP TABLE tombstones;
DROP TABLE idempotency;
