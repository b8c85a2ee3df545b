//! The database's own rules.

use backing::postgres::testing::TestDatabase;
use order::MIGRATIONS;
use service::migrate;
use service::testing::sql;
use uuid::Uuid;

use crate::world::World;

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'
    AND tablename <> '__diesel_schema_migrations'";

#[test]
fn migrations_go_up_and_down_and_up_again() {
    let database = TestDatabase::new("nothing", |_| anyhow::Ok(()));
    let url = database.url();
    for _ in 0..2 {
        migrate::up(url, &MIGRATIONS).unwrap();
        // Also when there is nothing to do.
        migrate::up(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 6);
        migrate::down(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 0);
    }
}

#[tokio::test]
async fn constraints_hold_in_the_database_as_well() {
    let world = World::start().await;
    let user = Uuid::new_v4();
    let order = world.placed(user).await;
    let item = world.item_of(user, order).await;
    let new = "gen_random_uuid()";
    for refused in [
        format!("VALUES ({new}, '{order}', 'PAID', {new})"),
        format!("VALUES ('{item}', {new}, 'PAID', {new})"),
        format!("VALUES ({new}, {new}, 'OPEN', {new})"),
        format!("VALUES ({new}, {new}, 'paid', {new})"),
        format!("VALUES ({new}, {new}, NULL, {new})"),
        format!("VALUES ({new}, {new}, 'PAID', NULL)"),
        format!("VALUES (NULL, {new}, 'PAID', {new})"),
    ] {
        let insert =
            format!("INSERT INTO orders (item_uid, order_uid, status, user_uid) {refused}");
        assert!(sql::execute(world.order.url(), &insert).is_err(), "{refused}");
    }
    let update = "UPDATE orders SET status = 'REFUNDED'";
    assert!(sql::execute(world.order.url(), update).is_err());
    assert_eq!(world.get(user, order).send().await.ok()["status"], "PAID");
}
