//! Whether the four databases tell the same story.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use diesel::sql_types::Text;
use diesel::{Connection as _, PgConnection, QueryableByName, RunQueryDsl as _};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::{Part, World};

/// Undos wait for a breaker (6 s), and for each other: how long after healing nothing may be left.
const SETTLED: Duration = Duration::from_secs(12);

/// Between one look and the next.
const LOOK: Duration = Duration::from_millis(20);

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

type Row = [String; 3];

/// Three columns of text, each row.
pub(crate) fn rows(url: &str, select: &str) -> Vec<Row> {
    read(&mut PgConnection::establish(url).unwrap(), select)
}

fn read(conn: &mut PgConnection, select: &str) -> Vec<Row> {
    let cells: Vec<Cells> = diesel::sql_query(select).load(conn).unwrap();
    cells.into_iter().map(|Cells { a, b, c }| [a, b, c]).collect()
}

/// What the four databases tell.
struct Books {
    /// Id, item, status.
    orders: Vec<Row>,
    /// Sagas of Order's that are open.
    open: Vec<Row>,
    /// Id, order, whether it was given back.
    items: Vec<Row>,
    /// Kind, how many are left, how many are held.
    stock: Vec<Row>,
    /// Item, status, whether it is open.
    warranties: Vec<Row>,
    /// Orders.
    refunds: Vec<Row>,
    /// Keys whose purchase Store is still undoing.
    undoing: Vec<Row>,
}

impl Books {
    /// Of Store, Order, Warehouse and Warranty.
    fn read([store, order, warehouse, warranty]: &[String; 4]) -> Self {
        let open = |url| PgConnection::establish(url).unwrap();
        let (mut store, mut order) = (open(store), open(order));
        let (mut warehouse, mut warranty) = (open(warehouse), open(warranty));
        Self {
            orders: read(
                &mut order,
                "SELECT order_uid::text AS a, item_uid::text AS b, status AS c FROM orders",
            ),
            open: read(
                &mut order,
                "SELECT id::text AS a, kind AS b, state AS c FROM saga WHERE ended_at IS NULL",
            ),
            items: read(
                &mut warehouse,
                "SELECT order_item_uid::text AS a, order_uid::text AS b, canceled::text AS c
                 FROM order_item",
            ),
            stock: read(
                &mut warehouse,
                "SELECT model || ' ' || size AS a, available_count::text AS b,
                        (SELECT count(*) FROM order_item WHERE item_id = items.id AND NOT canceled)::text
                        AS c FROM items",
            ),
            warranties: read(
                &mut warranty,
                "SELECT item_uid::text AS a, status AS b,
                        (status <> 'REMOVED_FROM_WARRANTY')::text AS c FROM warranty",
            ),
            refunds: read(
                &mut store,
                "SELECT order_uid::text AS a, '' AS b, '' AS c FROM refunds",
            ),
            undoing: read(
                &mut store,
                "SELECT key AS a, '' AS b, '' AS c FROM idempotency WHERE state = 'undoing'",
            ),
        }
    }

    fn paid(&self) -> BTreeSet<String> {
        of(&self.orders, "PAID").map(|[order, ..]| order.clone()).collect()
    }

    /// Exactly these orders are paid for, each holds one item and one warranty, nothing else holds
    /// any, and nothing is under way.
    fn balance(&self, paid: &BTreeSet<String>) -> Result<(), String> {
        let rule = |holds: bool, rule: String| if holds { Ok(()) } else { Err(rule) };
        let Self { orders, open, items, stock, warranties, refunds, undoing } = self;
        let found = self.paid();
        let (more, less) = (differ(&found, paid), differ(paid, &found));
        rule(found == *paid, format!("paid are {more}, and should be {less}"))?;
        let holders: BTreeMap<_, _> =
            of(orders, "PAID").map(|[order, item, _]| (item.clone(), order.clone())).collect();

        // Everything that is held is held once, by an order that is paid for.
        let held = of(items, "false").map(|[item, order, _]| (item.clone(), order.clone()));
        let held: Vec<_> = held.collect();
        let (once, due) = (held.iter().cloned().collect(), holders.clone().into_iter().collect());
        let (more, less) = (differ(&once, &due), differ(&due, &once));
        rule(once == due, format!("items are held by {more}, and should be by {less}"))?;
        rule(held.len() == once.len(), format!("items are held twice: {held:?}"))?;
        let covered = of(warranties, "true").map(|[item, ..]| item.clone()).collect();
        let due = holders.into_keys().collect();
        let (more, less) = (differ(&covered, &due), differ(&due, &covered));
        rule(covered == due, format!("open warranties are {more}, and should be {less}"))?;

        // What was refunded once had its item and its warranty.
        let canceled: BTreeSet<_> = of(orders, "CANCELED").map(|[order, ..]| order).collect();
        for [order, item, _] in of(orders, "CANCELED") {
            let had = |row: &&Row| row[0] == *item;
            let both = items.iter().any(|row| had(&row)) && warranties.iter().any(|row| had(&row));
            rule(both, format!("{order} is refunded, and never had its item and warranty"))?;
        }
        for [order, ..] in refunds {
            rule(canceled.contains(order), format!("{order} is refunded at Store alone"))?;
        }
        for [kind, left, taken] in stock {
            let whole = left.parse::<i64>().unwrap() + taken.parse::<i64>().unwrap();
            let initial = initial(kind);
            rule(whole == initial, format!("{kind}: {left} and {taken} are not {initial}"))?;
        }
        rule(open.is_empty(), format!("sagas are open: {open:?}"))?;
        rule(undoing.is_empty(), format!("Store is still undoing {undoing:?}"))
    }
}

impl World {
    /// Waits until nothing is being undone or completed any more; then exactly these orders are
    /// paid for, each holds one item and one warranty, and nothing else holds any.
    #[track_caller]
    pub(crate) fn settles_with(&self, paid: &[Uuid]) -> impl Future<Output = ()> {
        self.balances(Some(paid.iter().map(Uuid::to_string).collect()))
    }

    /// [`settles_with`](Self::settles_with), for whichever orders there are.
    #[track_caller]
    pub(crate) fn settles(&self) -> impl Future<Output = ()> {
        self.balances(None)
    }

    #[track_caller]
    fn balances(&self, paid: Option<BTreeSet<String>>) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let mut wrong = String::new();
            let mut balance = async || loop {
                let books = self.books().await;
                match books.balance(paid.as_ref().unwrap_or(&books.paid())) {
                    Ok(()) => break,
                    Err(said) => wrong = said,
                }
                sleep(LOOK).await;
            };
            let balanced = timeout(SETTLED, balance()).await;
            assert!(balanced.is_ok(), "the books don't balance, asked at {caller}: {wrong}");
        }
    }

    /// Read elsewhere: the network between the processes goes on meanwhile.
    async fn books(&self) -> Books {
        let parts = [Part::Store, Part::Order, Part::Warehouse, Part::Warranty];
        let urls = parts.map(|part| self.database(part).to_owned());
        spawn_blocking(move || Books::read(&urls)).await.unwrap()
    }

    /// What the ids of all orders are that are paid for.
    pub(crate) async fn paid(&self) -> BTreeSet<Uuid> {
        self.books().await.paid().iter().map(|uid| uid.parse().unwrap()).collect()
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

/// What is in the one, and not in the other.
fn differ<T: Ord + std::fmt::Debug>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> String {
    format!("{:?}", one.difference(other).collect::<Vec<_>>())
}

/// How many of a kind there were at first.
fn initial(kind: &str) -> i64 {
    let rare = kind.strip_prefix("Rare ").and_then(|rest| rest.split(' ').next());
    rare.map_or(SEEDED, |count| count.parse().unwrap())
}

/// The rows whose last column is this.
fn of<'a>(rows: &'a [Row], last: &'a str) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(move |row| row[2] == last)
}
