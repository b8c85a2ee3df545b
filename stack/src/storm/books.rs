//! Whether the four databases tell the same story.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use order::ops::item_of;

use super::goods::Goods;
use super::part::{Databases, Part};
use super::since_then;
use super::sql::{Row, connect, read, rows};

/// What the seed puts on the shelf, of each kind.
const SEEDED: i64 = 10_000;

/// What the four databases tell.
pub struct Books {
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
    /// All that is there.
    pub fn all(databases: &Databases) -> Result<Self> {
        Self::read(databases, &["true"; 5].map(str::to_owned))
    }

    /// What these users have, or had, since this moment of the machine's clock in microseconds.
    pub(super) fn of(databases: &Databases, goods: Goods, since: i64) -> Result<Self> {
        let mut books = Self::read(
            databases,
            &[
                goods.is_user("user_uid"),
                since_then("begun_at", since),
                format!("item_id IN (SELECT id FROM items WHERE {})", goods.is_model("model")),
                goods.is_model("model"),
                goods.is_user("substring(path from 'store/([0-9a-f-]{36})')::uuid"),
            ],
        )?;
        // Of a warranty nobody says whose it is but those who wanted it.
        let tried = rows(
            &databases[Part::Order as usize],
            &format!(
                "SELECT input ->> 'uid' AS a, '' AS b, '' AS c FROM saga
                 WHERE kind = 'place' AND {} AND {}",
                since_then("begun_at", since),
                goods.is_user("(input ->> 'user')::uuid")
            ),
        )?;
        let mut items: BTreeSet<String> =
            books.orders.iter().map(|[_, item, _]| item.clone()).collect();
        items.extend(books.items.iter().map(|[item, ..]| item.clone()));
        for [order, ..] in tried {
            items.insert(item_of(order.parse()?).to_string());
        }
        books.warranties.retain(|[item, ..]| items.contains(item));
        Ok(books)
    }

    fn read(databases: &Databases, whose: &[String; 5]) -> Result<Self> {
        let [users, begun, items, models, paths] = whose;
        let mut open = Vec::new();
        for url in databases {
            open.push(connect(url)?);
        }
        let mut of = |part: Part, select: &str| read(&mut open[part as usize], select);
        Ok(Self {
            orders: of(
                Part::Order,
                &format!(
                    "SELECT order_uid::text AS a, item_uid::text AS b, status AS c FROM orders
                     WHERE {users}"
                ),
            )?,
            open: of(
                Part::Order,
                &format!(
                    "SELECT id::text AS a, kind AS b, state AS c FROM saga
                     WHERE ended_at IS NULL AND {begun}"
                ),
            )?,
            items: of(
                Part::Warehouse,
                &format!(
                    "SELECT order_item_uid::text AS a, order_uid::text AS b, canceled::text AS c
                     FROM order_item WHERE {items}"
                ),
            )?,
            stock: of(
                Part::Warehouse,
                &format!(
                    "SELECT model || ' ' || size AS a, available_count::text AS b,
                            (SELECT count(*) FROM order_item WHERE item_id = items.id AND NOT canceled)::text
                            AS c FROM items WHERE {models}"
                ),
            )?,
            warranties: of(
                Part::Warranty,
                "SELECT item_uid::text AS a, status AS b,
                        (status <> 'REMOVED_FROM_WARRANTY')::text AS c FROM warranty",
            )?,
            refunds: of(
                Part::Store,
                &format!(
                    "SELECT order_uid::text AS a, '' AS b, '' AS c FROM refunds WHERE {users}"
                ),
            )?,
            undoing: of(
                Part::Store,
                &format!(
                    "SELECT key AS a, '' AS b, '' AS c FROM idempotency
                     WHERE state = 'undoing' AND {paths}"
                ),
            )?,
        })
    }

    /// The orders that are paid for.
    pub fn paid(&self) -> BTreeSet<String> {
        of(&self.orders, "PAID").map(|[order, ..]| order.clone()).collect()
    }

    /// Exactly these orders are paid for, each holds one item and one warranty, nothing else holds
    /// any, and nothing is under way.
    pub fn balance(&self, paid: &BTreeSet<String>) -> Result<(), String> {
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
            let number = |text: &str| text.parse::<i64>().unwrap_or_default();
            let whole = number(left) + number(taken);
            let initial = initial(kind);
            rule(whole == initial, format!("{kind}: {left} and {taken} are not {initial}"))?;
        }
        rule(open.is_empty(), format!("sagas are open: {open:?}"))?;
        rule(undoing.is_empty(), format!("Store is still undoing {undoing:?}"))
    }
}

/// What is in the one, and not in the other.
fn differ<T: Ord + std::fmt::Debug>(one: &BTreeSet<T>, other: &BTreeSet<T>) -> String {
    format!("{:?}", one.difference(other).collect::<Vec<_>>())
}

/// How many of a kind there were at first.
fn initial(kind: &str) -> i64 {
    let rare = kind.strip_prefix("Rare ").and_then(|rest| rest.split(' ').next());
    rare.map_or(SEEDED, |count| count.parse().unwrap_or_default())
}

/// The rows whose last column is this.
fn of<'a>(rows: &'a [Row], last: &'a str) -> impl Iterator<Item = &'a Row> {
    rows.iter().filter(move |row| row[2] == last)
}
