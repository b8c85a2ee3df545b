//! What is promised, and whether it held.

use std::collections::BTreeMap;
use std::fmt;

/// Whoever uses the store may rely on each of these, whatever is killed meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// Of the contract.
    Contract,
    /// Never two things about the same.
    OneWord,
    /// It comes to an end.
    Ends,
    /// Purchases.
    Bought,
    /// Refunds.
    Refunded,
    /// What `rolled_back` says.
    RolledBack,
    /// Effects.
    Once,
    /// Claims.
    Claimed,
    /// What has ended.
    Final,
    /// What the four databases have, together.
    Books,
    /// What Store shows.
    Seen,
    /// Afterwards.
    Works,
}

impl Promise {
    const ALL: [Self; 12] = [
        Self::Contract,
        Self::OneWord,
        Self::Ends,
        Self::Bought,
        Self::Refunded,
        Self::RolledBack,
        Self::Once,
        Self::Claimed,
        Self::Final,
        Self::Books,
        Self::Seen,
        Self::Works,
    ];

    /// Short: with its figure it is a line of a terminal.
    fn text(self) -> &'static str {
        match self {
            Self::Contract => "every answer is one of the contract's",
            Self::OneWord => "what a user was told is never taken back",
            Self::Ends => "soon after the last repair all has ended",
            Self::Bought => "what was bought is there, once, no more",
            Self::Refunded => "what was refunded is, and nothing else is",
            Self::RolledBack => "where rolled_back was said, it was true",
            Self::Once => "each effect came once, none after its undo",
            Self::Claimed => "each claim is decided once, or given up",
            Self::Final => "what has ended stays as it is",
            Self::Books => "orders, items, warranties and stock add up",
            Self::Seen => "Store shows each user what they have",
            Self::Works => "afterwards all works, no breaker is open",
        }
    }
}

/// What was found of each. One that nothing was held against has not held.
#[derive(Clone, Debug, Default)]
pub struct Promises {
    /// How much each was held against, and how to say it.
    figures: BTreeMap<Promise, (usize, String)>,
    broken: BTreeMap<Promise, Vec<String>>,
}

impl Promises {
    /// It was held against this much, which may be nothing.
    pub(super) fn looked(&mut self, promise: Promise, much: usize, figure: impl Into<String>) {
        self.figures.insert(promise, (much, figure.into()));
    }

    /// It is broken here, and how.
    pub(super) fn broke(&mut self, promise: Promise, how: impl Into<String>) {
        self.broken.entry(promise).or_default().push(how.into());
    }

    /// It is broken unless this is so.
    pub(super) fn check(&mut self, promise: Promise, holds: bool, how: impl FnOnce() -> String) {
        if !holds {
            self.broke(promise, how());
        }
    }

    /// What somebody else has found.
    pub(super) fn extend(&mut self, broken: Vec<(Promise, String)>) {
        for (promise, how) in broken {
            self.broke(promise, how);
        }
    }

    /// Whether every one of them was held against something, and has held.
    pub fn held(&self) -> bool {
        self.broken.is_empty() && Promise::ALL.iter().all(|one| self.was_tried(*one))
    }

    /// Whether any of them is broken.
    pub fn is_broken(&self) -> bool {
        !self.broken.is_empty()
    }

    fn was_tried(&self, promise: Promise) -> bool {
        self.figures.get(&promise).is_some_and(|(much, _)| *much > 0)
    }

    /// How those are broken that are, a line each, and at most so many of each.
    pub fn breaches(&self, most: usize) -> impl Iterator<Item = String> {
        self.broken.iter().flat_map(move |(promise, all)| {
            all.iter().take(most).map(|how| format!("{}: {how}", promise.text()))
        })
    }
}

/// A table: promise, held or not, figure.
impl fmt::Display for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = Promise::ALL.iter().map(|one| one.text().len()).max().unwrap_or_default();
        writeln!(f, "| {:<width$} | held | figure", "promise")?;
        writeln!(f, "|-{:-<width$}-|------|-------", "")?;
        for promise in Promise::ALL {
            let (figure, broken) = (self.figures.get(&promise), self.broken.get(&promise));
            let (held, how) = match broken {
                Some(all) => ("NO", Some(format!("broken {} times", all.len()))),
                None if self.was_tried(promise) => ("yes", None),
                None => ("?", Some("not tried".to_owned())),
            };
            let mut says = Vec::new();
            says.extend(how);
            says.extend(figure.map(|(_, figure)| figure.clone()));
            writeln!(f, "| {:<width$} | {held:<4} | {}", promise.text(), says.join("; "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_has_looked_at_has_not_held() {
        let mut promises = Promises::default();
        for promise in Promise::ALL {
            assert!(!promises.held(), "{promise:?} is open");
            assert!(promises.to_string().contains("| ?    | not tried\n"));
            promises.looked(promise, 1, "all");
        }
        assert!(promises.held());
        promises.check(Promise::Once, 1 > 2, || "twice".to_owned());
        assert!(!promises.held() && promises.is_broken());
        let table = promises.to_string();
        assert!(table.contains("none after its undo | NO   | broken 1 times; all"));
        promises.broke(Promise::Once, "thrice");
        promises.broke(Promise::Final, "changed");
        let breaches: Vec<_> = promises.breaches(1).collect();
        let once = "each effect came once, none after its undo: twice";
        assert_eq!(breaches, [once, "what has ended stays as it is: changed"]);
    }

    #[test]
    fn what_nothing_was_held_against_has_not_held() {
        for promise in Promise::ALL {
            let mut promises = Promises::default();
            for all in Promise::ALL {
                promises.looked(all, 1, "one");
            }
            promises.looked(promise, 0, "none at all");
            assert!(!promises.held() && !promises.is_broken(), "{promise:?}");
            assert!(promises.to_string().contains(" | ?    | not tried; none at all\n"));
        }
    }

    #[test]
    fn a_row_is_no_longer_than_a_line_of_a_terminal() {
        for promise in Promise::ALL {
            // "| ", " | yes  | ", and the longest figure.
            assert!(promise.text().len() + 11 + 27 <= 80, "{promise:?}");
        }
    }
}
