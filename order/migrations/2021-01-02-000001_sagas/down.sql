-- Returns that run: one at a time for an order, whichever replica has it. Whoever finds the lease
-- over goes on from what stands here.
CREATE TABLE returns (
    order_uid   UUID        PRIMARY KEY,
    token       UUID        NOT NULL,
    -- Each write extends it by its length.
    lease       INTERVAL    NOT NULL,
    lease_until TIMESTAMPTZ NOT NULL,
    -- The name of the warranty's close, by which it is undone.
    close_name  TEXT        NOT NULL,
    -- What the warranty was before it was closed; NULL while that isn't known.
    before      JSONB,
    -- True from just before the item's return is asked for: from then on it only goes forward.
    forward     BOOLEAN     NOT NULL DEFAULT FALSE
);
