//! Whether the four databases tell the same story.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{Connection as _, PgConnection, QueryableByName, RunQueryDsl as _};
use service::testing::until;
use uuid::Uuid;

use super::{Part, World};

/// Undos wait for a breaker (6 s), and for each other: how long after healing nothing may be left.
const SETTLED: Duration = Duration::from_secs(12);

/// What the seed puts on the shelf, of each kind.
const SEEDED: i64 = 10_000;

#[derive(QueryableByName)]
struct Cells {
    #[diesel(sql_type = Text)]
    a: String,
    #[diesel(sql_type = Text)]
    b: String,
    #[diesel(sql_type = Text)]
    c: String,
}

/// Three columns of text, each row.
pub(crate) fn rows(url: &str, select: &str) -> Vec<[String; 3]> {
    let mut connection = PgConnection::establish(url).unwrap();
    let cells: Vec<Cells> = diesel::sql_query(select).load(&mut connection).unwrap();
    cells.into_iter().map(|Cells { a, b, c }| [a, b, c]).collect()
}

impl World {
    /// Waits until nothing is being undone or completed any more; then exactly these orders are
    /// paid for, each holds one item and one warranty, and nothing else holds any.
    #[track_caller]
    pub(crate) fn settles_with(&self, paid: &[Uuid]) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut wrong = String::new();
            let settled = async {
                until(Duration::MAX, "the books balance", async || match self.books(paid) {
                    Ok(()) => Some(()),
                    Err(said) => {
                        wrong = said;
                        None
                    }
                })
                .await;
            };
            let settled = tokio::time::timeout(SETTLED, settled).await;
            assert!(settled.is_ok(), "the books don't balance, asked at {caller}: {wrong}");
        }
    }

    /// What the ids of all orders are that are paid for.
    pub(crate) fn paid(&self) -> Vec<Uuid> {
        let select = "SELECT order_uid::text AS a, '' AS b, '' AS c FROM orders
                      WHERE status = 'PAID'";
        let orders = rows(self.database(Part::Order), select);
        orders.into_iter().map(|[uid, ..]| uid.parse().unwrap()).collect()
    }

    /// [`settles_with`](Self::settles_with), for whichever orders there are.
    pub(crate) async fn settles(&self) {
        until(SETTLED, "the books balance", async || self.books(&self.paid()).ok()).await;
    }

    fn books(&self, paid: &[Uuid]) -> Result<(), String> {
        let rule = |holds: bool, rule: String| if holds { Ok(()) } else { Err(rule) };
        let orders = rows(
            self.database(Part::Order),
            "SELECT order_uid::text AS a, item_uid::text AS b, status AS c FROM orders",
        );
        let found: BTreeSet<_> = of(&orders, "PAID").map(|[order, ..]| order.clone()).collect();
        let expected: BTreeSet<_> = paid.iter().map(Uuid::to_string).collect();
        let more: Vec<_> = found.difference(&expected).collect();
        let less: Vec<_> = expected.difference(&found).collect();
        rule(found == expected, format!("paid are {more:?}, and should be {less:?}"))?;
        let holders: BTreeMap<_, _> =
            of(&orders, "PAID").map(|[order, item, _]| (item.clone(), order.clone())).collect();

        // Everything that is held is held once, by an order that is paid for.
        let items = rows(
            self.database(Part::Warehouse),
            "SELECT order_item_uid::text AS a, order_uid::text AS b, canceled::text AS c
             FROM order_item",
        );
        let held = of(&items, "false").map(|[item, order, _]| (item.clone(), order.clone()));
        let held: Vec<_> = held.collect();
        let by_item: BTreeMap<_, _> = held.iter().cloned().collect();
        let differ = |one: &BTreeMap<_, _>, other: &BTreeMap<_, _>| {
            let mut differ = one.clone();
            differ.retain(|item: &String, order: &mut String| other.get(item) != Some(order));
            format!("{differ:?}")
        };
        let (more, less) = (differ(&by_item, &holders), differ(&holders, &by_item));
        rule(by_item == holders, format!("items are held by {more}, and should be by {less}"))?;
        rule(held.len() == by_item.len(), format!("items are held twice: {held:?}"))?;
        let warranties = rows(
            self.database(Part::Warranty),
            "SELECT item_uid::text AS a, status AS b,
                    (status <> 'REMOVED_FROM_WARRANTY')::text AS c FROM warranty",
        );
        let open: BTreeSet<_> = of(&warranties, "true").map(|[item, ..]| item).collect();
        let due: BTreeSet<_> = holders.keys().collect();
        let more: Vec<_> = open.difference(&due).collect();
        let less: Vec<_> = due.difference(&open).collect();
        rule(open == due, format!("open warranties are {more:?}, and should be {less:?}"))?;

        // What was refunded once had its item and its warranty.
        for [order, item, _] in of(&orders, "CANCELED") {
            let had = |row: &&[String; 3]| row[0] == *item;
            let both = items.iter().any(|row| had(&row)) && warranties.iter().any(|row| had(&row));
            rule(both, format!("{order} is refunded, and never had its item and warranty"))?;
        }
        let refunds = rows(
            self.database(Part::Store),
            "SELECT order_uid::text AS a, '' AS b, '' AS c FROM refunds",
        );
        let canceled: BTreeSet<_> = of(&orders, "CANCELED").map(|[order, ..]| order).collect();
        for [order, ..] in &refunds {
            rule(canceled.contains(order), format!("{order} is refunded at Store alone"))?;
        }

        let stock = rows(
            self.database(Part::Warehouse),
            "SELECT model || ' ' || size AS a, available_count::text AS b,
                    (SELECT count(*) FROM order_item WHERE item_id = items.id AND NOT canceled)::text
                    AS c FROM items",
        );
        for [kind, left, taken] in &stock {
            let whole = left.parse::<i64>().unwrap() + taken.parse::<i64>().unwrap();
            let initial = initial(kind);
            rule(whole == initial, format!("{kind}: {left} and {taken} are not {initial}"))?;
        }

        // Nothing is under way.
        let open = "(SELECT count(*) FROM saga WHERE ended_at IS NULL)";
        rule(self.number(Part::Order, open) == 0, "a saga is open".to_owned())?;
        let undoing = "(SELECT count(*) FROM idempotency WHERE state = 'undoing')";
        let rolling = self.number(Part::Store, undoing);
        rule(rolling == 0, format!("Store is still undoing {rolling} attempts"))?;
        Ok(())
    }

    /// Puts so many of a new kind on the shelf, in size `M`. Its name says how many, for
    /// [`settles_with`](Self::settles_with).
    pub(crate) fn shelve(&self, count: i64) -> String {
        let model = format!("Rare {count}");
        self.execute(
            Part::Warehouse,
            &format!(
                "INSERT INTO items (model, size, available_count) VALUES ('{model}', 'M', {count})"
            ),
        );
        model
    }
}

/// How many of a kind there were at first.
fn initial(kind: &str) -> i64 {
    let rare = kind.strip_prefix("Rare ").and_then(|rest| rest.split(' ').next());
    rare.map_or(SEEDED, |count| count.parse().unwrap())
}

/// The rows whose last column is this.
fn of<'a>(rows: &'a [[String; 3]], last: &'a str) -> impl Iterator<Item = &'a [String; 3]> {
    rows.iter().filter(move |row| row[2] == last)
}
