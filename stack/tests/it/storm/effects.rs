//! What happens in the databases, noted where it happens, whatever anybody remembers of it.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::world::ledger::rows;
use crate::world::{Part, World};

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
/// Effects under one id come one after the other, as they take its lock, and so do their notes.
pub(super) fn watch(world: &World) {
    for part in Part::ALL {
        world.execute(
            part,
            "CREATE TABLE noted (number bigserial, at timestamptz DEFAULT clock_timestamp(),
                                 place text, id uuid, what text);
             CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
             'DECLARE was jsonb := to_jsonb(OLD); now jsonb := to_jsonb(NEW);
              BEGIN
                  INSERT INTO noted (place, id, what) VALUES (
                      TG_TABLE_NAME, (coalesce(now, was) ->> TG_ARGV[0])::uuid,
                      concat_ws('' '', TG_OP, was ->> TG_ARGV[1], now ->> TG_ARGV[1]));
                  RETURN NULL;
              END'",
        );
    }
    for (part, table, id, column) in EFFECTS {
        world.execute(
            part,
            &format!(
                "CREATE TRIGGER noted AFTER INSERT OR UPDATE OR DELETE ON {table}
                 FOR EACH ROW EXECUTE FUNCTION note('{id}', '{column}')"
            ),
        );
    }
    for (part, table) in ENDING {
        world.execute(
            part,
            &format!(
                "CREATE TRIGGER noted AFTER UPDATE OR DELETE ON {table}
                 FOR EACH ROW WHEN (OLD.ended_at IS NOT NULL)
                 EXECUTE FUNCTION note('id', 'state')"
            ),
        );
    }
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
    pub(super) fn of(world: &World, part: Part) -> Self {
        let notes = rows(
            world.database(part),
            "SELECT id::text AS a, place || ' ' || (extract(epoch FROM at) * 1000000)::bigint AS b,
                    what AS c
             FROM noted WHERE place NOT IN ('deferred', 'saga') ORDER BY number",
        );
        let mut effects = Self(BTreeMap::new());
        for [id, place, what] in notes {
            let (place, at) = place.split_once(' ').unwrap();
            let note = Note { at: at.parse().unwrap(), tombstone: place == "tombstones", what };
            effects.0.entry(id.parse().unwrap()).or_default().push(note);
        }
        effects
    }

    /// Under each id there was at most one effect, which ended at most once, and nothing but that end
    /// behind its tombstone. How many there were, and how many tombstones stand.
    pub(super) fn happened_once(&self, end: &str) -> (usize, usize) {
        let (mut all, mut tombstones) = (0, 0);
        for (id, notes) in &self.0 {
            let begun = |note: &&Note| !note.tombstone && note.what.starts_with("INSERT");
            let begun = notes.iter().filter(begun).count();
            assert!(begun <= 1, "more than one effect under {id}: {notes:?}");
            let ended = notes.iter().filter(|note| note.what.ends_with(end)).count();
            // By a refund that failed.
            let reopened = notes.iter().filter(|note| note.what.starts_with(REOPENED)).count();
            assert!(ended <= 1 + reopened, "ended twice, {id}: {notes:?}");
            let undone = notes.iter().position(|note| note.tombstone);
            let mut behind = undone.into_iter().flat_map(|undone| &notes[undone + 1..]);
            let nothing = behind.all(|note| note.what.ends_with(end));
            assert!(nothing, "an effect behind its tombstone, {id}: {notes:?}");
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
        (words.next() != Some("DELETE")).then(|| words.next_back().unwrap())
    }

    /// How often this became of it.
    pub(super) fn count(&self, id: Uuid, what: &str) -> usize {
        let notes = self.0.get(&id).into_iter().flatten();
        notes.filter(|note| note.what == what).count()
    }

    /// How often this became of any.
    pub(super) fn count_all(&self, what: &str) -> usize {
        self.0.values().flatten().filter(|note| note.what == what).count()
    }

    /// How often anything became of it.
    pub(super) fn len(&self, id: Uuid) -> usize {
        self.0.get(&id).map_or(0, Vec::len)
    }
}

/// What has ended has not changed any more.
pub(super) fn ended_for_good(world: &World) {
    for part in [Part::Store, Part::Order] {
        let changed = rows(
            world.database(part),
            "SELECT id::text AS a, place AS b, what AS c FROM noted
             WHERE place IN ('deferred', 'saga')",
        );
        assert!(changed.is_empty(), "{part:?} has changed what had ended: {changed:?}");
    }
}
