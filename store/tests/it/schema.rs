//! The database's own rules.

use backing::postgres::testing::TestDatabase;
use diesel::{Connection, PgConnection};
use service::migrate;
use service::testing::sql;
use store::{MIGRATIONS, models::User};
use uuid::Uuid;

const TABLES: &str = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'
    AND tablename <> '__diesel_schema_migrations'";

fn migrated() -> TestDatabase {
    TestDatabase::new("store", |url| migrate::up(url, &MIGRATIONS))
}

#[test]
fn migrations_go_up_and_down_and_up_again() {
    let database = TestDatabase::new("nothing", |_| anyhow::Ok(()));
    let url = database.url();
    for _ in 0..2 {
        migrate::up(url, &MIGRATIONS).unwrap();
        // Also when there is nothing to do.
        migrate::up(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 7);
        migrate::down(url, &MIGRATIONS).unwrap();
        assert_eq!(sql::number(url, TABLES), 0);
    }
}

#[test]
fn migrations_hold_no_data_and_the_seed_is_written_once() {
    let database = migrated();
    let users = || sql::number(database.url(), "SELECT count(*) FROM users");
    assert_eq!(users(), 0);
    let mut conn = PgConnection::establish(database.url()).unwrap();
    assert_eq!(User::seed(&mut conn).unwrap(), 1);
    assert_eq!(User::seed(&mut conn).unwrap(), 0);
    assert_eq!(users(), 1);
    let alex = "SELECT count(*) FROM users WHERE name = 'Alex'
        AND user_uid = '6d2cb5a0-943c-4b96-9aa6-89eac7bdfd2b'";
    assert_eq!(sql::number(database.url(), alex), 1);
}

#[test]
fn constraints_hold_in_the_database_as_well() {
    let database = migrated();
    let url = database.url();
    let user = Uuid::new_v4();
    let claim = |values: &str| {
        format!(
            "INSERT INTO claims (claim_uid, order_uid, user_uid, status, decision, reason,
             requested_at) VALUES (gen_random_uuid(), gen_random_uuid(), {values}, now())"
        )
    };
    let failed = |failure: &str| {
        format!(
            "INSERT INTO claims (claim_uid, order_uid, user_uid, reason, requested_at, status,
             failure) VALUES (gen_random_uuid(), gen_random_uuid(), '{user}', 'x', now(), {failure})"
        )
    };
    for accepted in [
        format!("INSERT INTO users (name, user_uid) VALUES ('Alex', '{user}')"),
        claim(&format!("'{user}', 'DECIDED', 'RETURN', 'x'")),
        claim(&format!("'{user}', 'QUEUED', NULL, 'x'")),
        failed("'FAILED', 'no'"),
        format!("INSERT INTO refunds (order_uid, user_uid) VALUES ('{user}', '{user}')"),
    ] {
        sql::execute(url, &accepted).unwrap_or_else(|error| panic!("{accepted}: {error}"));
    }
    for refused in [
        "INSERT INTO users (name, user_uid) VALUES ('Alex', gen_random_uuid())".to_owned(),
        format!("INSERT INTO users (name, user_uid) VALUES ('Blake', '{user}')"),
        "INSERT INTO users (name, user_uid) VALUES ('', gen_random_uuid())".to_owned(),
        "INSERT INTO users (name, user_uid) VALUES (NULL, gen_random_uuid())".to_owned(),
        claim("gen_random_uuid(), 'QUEUED', NULL, 'x'"),
        claim(&format!("'{user}', 'OPEN', NULL, 'x'")),
        failed("'FAILED', NULL"),
        failed("'QUEUED', 'no'"),
        claim(&format!("'{user}', 'DECIDED', NULL, 'x'")),
        claim(&format!("'{user}', 'QUEUED', 'RETURN', 'x'")),
        claim(&format!("'{user}', 'DECIDED', 'MAYBE', 'x'")),
        claim(&format!("'{user}', 'QUEUED', NULL, ''")),
        claim(&format!("'{user}', 'QUEUED', NULL, repeat('x', 1025)")),
        "UPDATE claims SET claim_uid = (SELECT min(claim_uid::text)::uuid FROM claims)".to_owned(),
        format!("INSERT INTO refunds (order_uid, user_uid) VALUES ('{user}', '{user}')"),
        "INSERT INTO refunds (order_uid, user_uid)
         VALUES (gen_random_uuid(), gen_random_uuid())"
            .to_owned(),
        "DELETE FROM users".to_owned(),
    ] {
        assert!(sql::execute(url, &refused).is_err(), "{refused}");
    }
}
