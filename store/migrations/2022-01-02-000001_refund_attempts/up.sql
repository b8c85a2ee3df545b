-- Refunds that Order was asked for and that may still come: until it is refunded nobody is told of an
-- order that its refund was rolled back while one of them is open.
CREATE TABLE refund_attempts (
    attempt_uid UUID        PRIMARY KEY,
    order_uid   UUID        NOT NULL,
    user_uid    UUID        NOT NULL REFERENCES users (user_uid),
    begun_at    TIMESTAMPTZ NOT NULL DEFAULT now()
);
CREATE INDEX refund_attempts_order_uid ON refund_attempts (order_uid);
