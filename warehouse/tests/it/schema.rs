//! The database's own rules.

use backing::postgres::testing::TestDatabase;
use diesel::{Connection, PgConnection};
use service::migrate;
use service::testing::sql;
use warehouse::{MIGRATIONS, models::Stock};

use crate::world::{World, migrate as up, serve, wish};

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'
    AND tablename <> '__diesel_schema_migrations'";

#[tokio::test]
async fn migrations_go_up_and_down_and_up_again() {
    let database = TestDatabase::new("nothing", |_| anyhow::Ok(()));
    let url = database.url();
    for _ in 0..2 {
        migrate::up(url, &MIGRATIONS).unwrap();
        // Also when there is nothing to do.
        migrate::up(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 4);
        migrate::down(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 0);
    }
    // A service brings an empty database up to date by itself, and two that start at once don't
    // stumble over each other.
    let (one, two) = tokio::join!(serve(url, &[]), serve(url, &[]));
    assert_eq!(sql::number(url, TABLES), 4);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn migrations_hold_no_data_and_the_seed_is_written_once() {
    let database = TestDatabase::new("warehouse", up);
    let count = || sql::number(database.url(), "SELECT count(*) FROM items");
    assert_eq!(count(), 0);
    let mut conn = PgConnection::establish(database.url()).unwrap();
    assert_eq!(Stock::seed(&mut conn).unwrap(), 3);
    sql::execute(database.url(), "UPDATE items SET available_count = 5").unwrap();
    assert_eq!(Stock::seed(&mut conn).unwrap(), 0);
    assert_eq!(count(), 3);
    assert_eq!(sql::number(database.url(), "SELECT sum(available_count) FROM items"), 15);
}

#[tokio::test]
async fn constraints_hold_in_the_database_as_well() {
    let world = World::start().await;
    let item = world.taken_item().await;
    for refused in [
        "INSERT INTO items (model, size, available_count) VALUES ('x', 'M', -1)",
        "UPDATE items SET available_count = -1",
        "INSERT INTO items (model, size, available_count) VALUES ('Lego 8070', 'M', 1)",
        "INSERT INTO items (model, size, available_count) VALUES ('x', 'm', 1)",
        "INSERT INTO items (model, size, available_count) VALUES ('x', '', 1)",
        "INSERT INTO items (model, size, available_count) VALUES ('x', 'TOOLONG99', 1)",
        "INSERT INTO items (model, size, available_count) VALUES ('', 'M', 1)",
        "INSERT INTO items (model, size, available_count) VALUES (repeat('x', 256), 'M', 1)",
        "INSERT INTO order_item (order_item_uid, order_uid, item_id)
         VALUES (gen_random_uuid(), gen_random_uuid(), 999)",
        &format!(
            "INSERT INTO order_item (order_item_uid, order_uid, item_id)
             SELECT '{item}', gen_random_uuid(), id FROM items"
        ),
        "DELETE FROM items",
    ] {
        let result = sql::execute(world.database.url(), refused);
        assert!(result.is_err(), "{refused}");
    }
    world.take(&wish(item)).send().await.ok();
}
