//! What happens in the databases, noted where it happens, whatever anybody remembers of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use uuid::Uuid;

use super::part::{Databases, Part};
use super::promises::{Promise, Promises};
use super::sql::{execute, number, rows};
use super::{now, since_then};

/// Where effects are: the table, the id that they come under, and what says how it is.
const EFFECTS: [(Part, &str, &str, &str); 6] = [
    (Part::Order, "orders", "order_uid", "status"),
    (Part::Order, "tombstones", "id", "id"),
    (Part::Warehouse, "order_item", "order_item_uid", "canceled"),
    (Part::Warehouse, "tombstones", "id", "id"),
    (Part::Warranty, "warranty", "item_uid", "status"),
    (Part::Warranty, "tombstones", "id", "id"),
];

/// Whose rows have an end, behind which nothing may become of them.
const ENDING: [(Part, &str); 3] =
    [(Part::Store, "deferred"), (Part::Order, "deferred"), (Part::Order, "saga")];

/// From here on each effect is noted, in its own transaction, and each change of what has ended.
/// Effects under one id come one after the other, as they take its lock, and so do their notes. It ends
/// with [`forget`], or by itself after this time.
pub(super) fn watch(databases: &Databases, since: i64, limit: Duration) -> Result<()> {
    forget(databases)?;
    for part in Part::ALL {
        execute(
            &databases[part as usize],
            &format!(
                "CREATE SCHEMA drill;
                 CREATE TABLE drill.noted (
                     number bigserial, at timestamptz DEFAULT clock_timestamp(),
                     place text, id uuid, what text);
                 CREATE FUNCTION drill.note() RETURNS trigger LANGUAGE plpgsql AS
                 'DECLARE was jsonb := to_jsonb(OLD); now jsonb := to_jsonb(NEW);
                  BEGIN
                      IF clock_timestamp() < ''epoch''::timestamptz + {} * interval ''1 s'' THEN
                          INSERT INTO drill.noted (place, id, what) VALUES (
                              TG_TABLE_NAME, (coalesce(now, was) ->> TG_ARGV[0])::uuid,
                              concat_ws('' '', TG_OP, was ->> TG_ARGV[1], now ->> TG_ARGV[1]));
                      END IF;
                      RETURN NULL;
                  END'",
                now() / 1_000_000 + i64::try_from(limit.as_secs())?
            ),
        )?;
    }
    for (part, table, id, column) in EFFECTS {
        execute(
            &databases[part as usize],
            &format!(
                "CREATE TRIGGER drill AFTER INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION drill.note('{id}', '{column}')"
            ),
        )?;
    }
    for (part, table) in ENDING {
        execute(
            &databases[part as usize],
            &format!(
                "CREATE TRIGGER drill AFTER UPDATE OR DELETE ON {table}
                 FOR EACH ROW WHEN ({})
                 EXECUTE FUNCTION drill.note('id', 'state')",
                // What had ended before is somebody else's, and may be too old to be kept.
                since_then("OLD.ended_at", since)
            ),
        )?;
    }
    Ok(())
}

/// Nothing is noted any more, and nothing is left of the notes.
pub(super) fn forget(databases: &Databases) -> Result<()> {
    databases.iter().try_for_each(|url| execute(url, "DROP SCHEMA IF EXISTS drill CASCADE"))
}

/// What becomes of a warranty whose close is undone.
const REOPENED: &str = "UPDATE REMOVED_FROM_WARRANTY ";

/// One effect.
#[derive(Debug)]
struct Note {
    /// In microseconds since the epoch, just before its commit.
    at: i64,
    tombstone: bool,
    /// `INSERT` and what it is, `UPDATE` with what it was and is, `DELETE` and what it was.
    what: String,
}

/// The effects in one database, by what they came under, in their order.
#[derive(Debug)]
pub(super) struct Effects(BTreeMap<Uuid, Vec<Note>>);

impl Effects {
    pub(super) fn of(databases: &Databases, part: Part) -> Result<Self> {
        let notes = rows(
            &databases[part as usize],
            "SELECT id::text AS a, place || ' ' || (extract(epoch FROM at) * 1000000)::bigint AS b,
                    what AS c
             FROM drill.noted WHERE place NOT IN ('deferred', 'saga') ORDER BY number",
        )?;
        let mut effects = Self(BTreeMap::new());
        for [id, place, what] in notes {
            let (place, at) = place.split_once(' ').context("a note has a place and a time")?;
            let note = Note { at: at.parse()?, tombstone: place == "tombstones", what };
            effects.0.entry(id.parse()?).or_default().push(note);
        }
        Ok(effects)
    }

    /// Under each id there was at most one effect, which ended at most once, and nothing but that end
    /// behind its tombstone. How many there were, and how many tombstones stand.
    pub(super) fn happened_once(&self, end: &str, promises: &mut Promises) -> (usize, usize) {
        let (mut all, mut tombstones) = (0, 0);
        for (id, notes) in &self.0 {
            let mut rule = |holds, rule: &str| {
                promises.check(Promise::Once, holds, || format!("{rule}, {id}: {notes:?}"));
            };
            let begun = |note: &&Note| !note.tombstone && note.what.starts_with("INSERT");
            let begun = notes.iter().filter(begun).count();
            rule(begun <= 1, "more than one effect");
            let ended = notes.iter().filter(|note| note.what.ends_with(end)).count();
            // By a refund that failed.
            let reopened = notes.iter().filter(|note| note.what.starts_with(REOPENED)).count();
            rule(ended <= 1 + reopened, "ended twice");
            let undone = notes.iter().position(|note| note.tombstone);
            let mut behind = undone.into_iter().flat_map(|undone| &notes[undone + 1..]);
            rule(behind.all(|note| note.what.ends_with(end)), "an effect behind its tombstone");
            all += begun;
            tombstones += usize::from(undone.is_some());
        }
        (all, tombstones)
    }

    /// What it was by then, if there was any.
    pub(super) fn at(&self, id: Uuid, time: i64) -> Option<&str> {
        let notes = self.0.get(&id)?.iter();
        let last = notes.rev().find(|note| !note.tombstone && note.at <= time)?;
        let mut words = last.what.split(' ');
        (words.next() != Some("DELETE")).then(|| words.next_back().unwrap_or_default())
    }

    /// How often this became of it.
    pub(super) fn count(&self, id: Uuid, what: &str) -> usize {
        let notes = self.0.get(&id).into_iter().flatten();
        notes.filter(|note| note.what == what).count()
    }

    /// How often anything became of it.
    pub(super) fn len(&self, id: Uuid) -> usize {
        self.0.get(&id).map_or(0, Vec::len)
    }
}

/// What has ended has not changed any more.
pub(super) fn ended_for_good(
    databases: &Databases,
    since: i64,
    promises: &mut Promises,
) -> Result<()> {
    let since = since_then("ended_at", since);
    let mut ended = 0;
    for part in Part::LEDGERS {
        let url = &databases[part as usize];
        let changed = rows(
            url,
            "SELECT id::text AS a, place AS b, what AS c FROM drill.noted
             WHERE place IN ('deferred', 'saga')",
        )?;
        for [id, place, what] in changed {
            let name = part.name();
            promises.broke(Promise::Final, format!("{name}'s {place} {id} had ended: {what}"));
        }
        ended += number(url, &format!("(SELECT count(*) FROM deferred WHERE {since})"))?;
    }
    let order = &databases[Part::Order as usize];
    ended += number(order, &format!("(SELECT count(*) FROM saga WHERE {since})"))?;
    let figure = format!("{ended} calls and sagas");
    promises.looked(Promise::Final, usize::try_from(ended)?, figure);
    Ok(())
}
