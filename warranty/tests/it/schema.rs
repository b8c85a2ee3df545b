//! The database's own rules.

use backing::postgres::testing::TestDatabase;
use service::migrate;
use service::testing::sql;
use warranty::MIGRATIONS;

use crate::world::{World, serve};

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
        assert_eq!(sql::number(url, "SELECT count(*) FROM warranty"), 0);
        migrate::down(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 0);
    }
    let server = serve(url, &[]).await;
    assert_eq!(sql::number(url, TABLES), 4);
    server.stop().await;
}

#[tokio::test]
async fn constraints_hold_in_the_database_as_well() {
    let world = World::start().await;
    let item = world.begun().await;
    world.close(item).key("k").send().await.no_content();
    for refused in [
        "UPDATE warranty SET status = 'OPEN'",
        "UPDATE warranty SET status = NULL",
        "UPDATE warranty SET comment = ''",
        "UPDATE warranty SET comment = repeat('x', 1025)",
        "UPDATE warranty SET warranty_date = NULL",
        &format!(
            "INSERT INTO warranty (item_uid, status, warranty_date) VALUES ('{item}', 'ON_WARRANTY', now())"
        ),
        "INSERT INTO closes VALUES (gen_random_uuid(), 'k', false, true)",
        "INSERT INTO closes SELECT item_uid, 'k', false, true FROM warranty",
        "INSERT INTO closes SELECT item_uid, '', false, true FROM warranty",
        // One close at most holds a warranty closed.
        "INSERT INTO closes SELECT item_uid, 'second', true, false FROM warranty",
        "DELETE FROM warranty",
    ] {
        assert!(sql::execute(world.database.url(), refused).is_err(), "{refused}");
    }
    assert_eq!(world.status(item).await, "REMOVED_FROM_WARRANTY");
}
