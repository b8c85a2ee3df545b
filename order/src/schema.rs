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
