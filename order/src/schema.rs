//! Its tables.

diesel::table! {
    orders (id) {
        id -> Int8,
        item_uid -> Uuid,
        order_date -> Timestamptz,
        order_uid -> Uuid,
        status -> Text,
        user_uid -> Uuid,
    }
}

diesel::table! {
    returns (order_uid) {
        order_uid -> Uuid,
        token -> Uuid,
        lease -> Interval,
        lease_until -> Timestamptz,
        close_name -> Text,
        before -> Nullable<Jsonb>,
        forward -> Bool,
    }
}
