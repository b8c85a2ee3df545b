//! Its tables.

diesel::table! {
    items (id) {
        id -> Int4,
        available_count -> Int4,
        model -> Text,
        size -> Text,
    }
}

diesel::table! {
    order_item (id) {
        id -> Int8,
        canceled -> Bool,
        order_item_uid -> Uuid,
        order_uid -> Uuid,
        item_id -> Int4,
    }
}

diesel::joinable!(order_item -> items (item_id));
diesel::allow_tables_to_appear_in_same_query!(items, order_item);
