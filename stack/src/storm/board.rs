//! What happens, for whoever watches: what was broken, what is broken now, what users got.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::stage::{Blow, Harm};

/// Written by all, read by any.
#[derive(Debug, Default)]
pub struct Board {
    /// How often what was done to whom.
    struck: Mutex<BTreeMap<(String, &'static str), u64>>,
    /// What is broken now.
    down: Mutex<Vec<(String, &'static str)>>,
    /// What was done since the last line.
    recent: Mutex<Vec<(String, &'static str)>>,
    repaired: Mutex<Option<Instant>>,
    /// What could not be mended at once, and why.
    trouble: Mutex<Vec<String>>,
    /// How often users heard what.
    words: Mutex<BTreeMap<String, u64>>,
    waiting: AtomicUsize,
    /// What stays in the databases.
    leavings: Mutex<String>,
}

impl Board {
    pub(super) fn leaves(&self, what: String) {
        *lock(&self.leavings) = what;
    }

    /// What stays in the databases, however it ends, and how to tell it from anything else.
    pub fn leavings(&self) -> String {
        let leavings = lock(&self.leavings).clone();
        if leavings.is_empty() { "nothing".to_owned() } else { leavings }
    }

    pub(super) fn struck(&self, blow: Blow, times: u64) {
        let key = (blow.victim.to_string(), blow.harm.text());
        *lock(&self.struck).entry(key.clone()).or_default() += times;
        lock(&self.recent).push(key.clone());
        if blow.harm.lasts() {
            lock(&self.down).push(key);
        }
    }

    pub(super) fn mended(&self, blow: Blow) {
        let key = (blow.victim.to_string(), blow.harm.text());
        let mut down = lock(&self.down);
        if let Some(at) = down.iter().position(|one| *one == key) {
            down.swap_remove(at);
        }
        *lock(&self.repaired) = Some(Instant::now());
    }

    pub(super) fn troubled(&self, what: String) {
        lock(&self.trouble).push(what);
    }

    pub(super) fn heard(&self, word: &str) {
        *lock(&self.words).entry(word.to_owned()).or_default() += 1;
    }

    pub(super) fn came(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn left(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Since when everything is there again, if not ready yet.
    pub(super) fn last_repair(&self) -> Option<Instant> {
        *lock(&self.repaired)
    }

    /// How many users are waiting for an answer that satisfies them.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// How often users heard what.
    pub fn words(&self) -> BTreeMap<String, u64> {
        lock(&self.words).clone()
    }

    /// How often what was done to whom.
    pub fn blows(&self) -> Vec<(String, u64)> {
        let struck = lock(&self.struck);
        struck.iter().map(|((who, what), count)| (format!("{who} {what}"), *count)).collect()
    }

    /// How many processes were killed.
    pub fn kills(&self) -> u64 {
        let struck = lock(&self.struck);
        let kill = |what| what == Harm::Killed.text() || what == Harm::Wiped.text();
        let kills = struck.iter().filter(|((_, what), _)| kill(*what));
        kills.map(|(_, count)| count).sum()
    }

    /// What could not be mended at once, since this was last asked.
    pub fn take_trouble(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.trouble))
    }

    /// Where things stand, in a line: what is broken now, or was since the last one, is at its end.
    pub fn line(&self) -> String {
        const WORDS: [(&str, &[&str]); 8] = [
            ("bought", &["purchase: 201"]),
            ("refused", &["purchase: 404 ", "purchase: 409 sold_out"]),
            ("refunded", &["refund: 204"]),
            ("claimed", &["claim: 200"]),
            ("queued", &["claim: 202"]),
            ("rolled back", &["purchase: 503 roll", "refund: 503 roll", "refund: 503 refund_p"]),
            ("try again", &[": 429", ": 503 ", "idempotency_in_progress"]),
            ("no answer", &["no answer"]),
        ];
        let mut counts = [0; WORDS.len()];
        for (word, count) in &*lock(&self.words) {
            let means = |(_, all): &(&str, &[&str])| all.iter().any(|one| word.contains(one));
            if let Some(at) = WORDS.iter().position(means) {
                counts[at] += count;
            }
        }
        let mut line = String::new();
        for ((what, _), count) in WORDS.iter().zip(counts) {
            let _ = write!(line, "{what} {count}, ");
        }
        let _ = write!(line, "waiting {}", self.waiting());
        let mut broken = std::mem::take(&mut *lock(&self.recent));
        broken.extend(lock(&self.down).iter().cloned());
        let mut broken: Vec<_> =
            broken.into_iter().map(|(who, what)| format!("{who} {what}")).collect();
        broken.sort_unstable();
        broken.dedup();
        if !broken.is_empty() {
            let _ = write!(line, " | {}", broken.join(", "));
        }
        line
    }
}

/// Whoever panicked holding it has left whole counts behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Part;
    use crate::stage::Victim;

    #[test]
    fn a_line_says_what_users_got_and_what_is_broken_now() {
        let board = Board::default();
        board.came();
        for word in ["purchase: 201", "purchase: 503 rolled_back", "claim: no answer"] {
            board.heard(word);
        }
        let blow = Blow { victim: Victim::Service(Part::Order, 0), harm: Harm::Frozen };
        board.struck(blow, 1);
        assert_eq!(
            board.line(),
            "bought 1, refused 0, refunded 0, claimed 0, queued 0, rolled back 1, try again 0, \
             no answer 1, waiting 1 | order frozen"
        );
        assert!(board.line().ends_with("waiting 1 | order frozen"));
        board.mended(blow);
        assert!(board.line().ends_with("waiting 1"));
        // Over between two lines.
        board.struck(blow, 1);
        board.mended(blow);
        assert!(board.line().ends_with("waiting 1 | order frozen"));
        assert_eq!(board.blows(), [("order frozen".to_owned(), 2)]);
    }
}
