//! Users buy, claim and give back while everything is killed, over and over: in the end everybody has
//! what they were told, and there is no more than that.
//!
//! - [`run`]: all of it, from a [`Plan`] to a [`Report`]; [`stage`]: what it needs of the store that it
//!   runs on; [`board`]: for whoever watches.
//! - `users`: who comes, at a steady rate, and notes what they are told; `shoppers`: those who buy;
//!   [`shop`]: what they do at Store.
//! - [`trouble`]: what is killed, stopped, frozen, cut off, filled up, deleted and wiped meanwhile;
//!   `dice`: chance that can be had again.
//! - `effects`: what happens in the databases meanwhile; [`goods`]: what was put there before;
//!   [`books`]: whether they tell the same story.
//! - `verdict`: what has become of it all, by all that can tell; `purchases` and `claims`: its
//!   parts on these; [`promises`]: what it comes to.

pub mod board;
pub mod books;
mod claims;
mod dice;
mod effects;
pub mod goods;
pub mod part;
pub mod promises;
mod purchases;
pub mod shop;
mod shoppers;
pub mod sql;
pub mod stage;
pub mod trouble;
mod users;
mod verdict;
mod works;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use tokio::sync::watch;
use uuid::Uuid;

use self::board::Board;
use self::goods::{Goods, shelve};
use self::promises::{Promise, Promises};
use self::stage::Stage;
use self::trouble::Pace;
use self::users::Crowd;

/// After this nothing may be under way any more: a promise.
const HEALED: Duration = Duration::from_mins(1);

/// What is to happen.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// It repeats all choices, if not their consequences.
    pub seed: u64,
    /// For how long users come, and things break.
    pub length: Duration,
    /// Users a second.
    pub rate: u32,
    /// How often things break.
    pub pace: Pace,
}

/// How it ended.
#[derive(Debug)]
pub struct Report {
    /// What held, and what didn't.
    pub promises: Promises,
    /// What else is to be said, each with its figure.
    pub facts: Facts,
    /// The orders that are paid for.
    pub paid: Vec<Uuid>,
    /// What is under way still, if something is.
    pub open: Vec<String>,
}

/// What is said of something, and how much of it there is.
pub type Facts = Vec<(String, String)>;

impl Report {
    /// A row for each.
    pub fn table(&self) -> String {
        let mut table = String::new();
        for (fact, figure) in &self.facts {
            let _ = writeln!(table, "| {fact} | {figure} |");
        }
        table
    }
}

/// Where it happens, and who watches.
#[derive(Debug)]
struct Scene<S> {
    stage: Arc<S>,
    board: Arc<Board>,
    goods: Goods,
    /// When it began.
    since: i64,
    crowd: Crowd,
    stock: Stock,
}

/// When it ends: by the clock, or earlier.
#[derive(Clone, Debug)]
struct Stop {
    end: Instant,
    early: watch::Receiver<bool>,
}

impl Stop {
    /// Sleeps for so long, and for no longer than it goes on. Whether it does.
    async fn sleep(&self, time: Duration) -> bool {
        let mut early = self.early.clone();
        let early = async {
            if early.wait_for(|now| *now).await.is_err() {
                // Nobody is left who could say so.
                std::future::pending::<()>().await;
            }
        };
        let left = self.end.saturating_duration_since(Instant::now());
        tokio::select! {
            () = tokio::time::sleep(time.min(left)) => Instant::now() < self.end,
            () = early => false,
        }
    }
}

/// All of it, on this store. It is broken while `early` is false, or until the plan's time is over;
/// then it is mended, and looked at.
///
/// # Errors
/// When the store can't be broken, mended, or looked at: nothing is said of its promises then.
pub async fn run<S: Stage>(
    stage: Arc<S>,
    plan: Plan,
    board: Arc<Board>,
    early: watch::Receiver<bool>,
) -> Result<Report> {
    let databases = stage.databases().clone();
    let outcome = rage(stage, plan, board, early).await;
    // Whatever else has failed is what there is to be said.
    let forgotten = forget(&databases);
    let report = outcome?;
    forgotten.map(|()| report)
}

/// Takes out of the databases what was put there to watch them.
pub fn forget(databases: &part::Databases) -> Result<()> {
    effects::forget(databases)
}

async fn rage<S: Stage>(
    stage: Arc<S>,
    plan: Plan,
    board: Arc<Board>,
    early: watch::Receiver<bool>,
) -> Result<Report> {
    let Plan { seed, length, rate, pace } = plan;
    let crowd = Crowd::of(length, rate);
    let goods = Goods::new();
    let stock = Stock::of(goods, crowd);
    let scene = Arc::new(Scene { stage, board, goods, since: now(), crowd, stock });
    prepare(&scene, length).context("could not put goods into the store")?;

    let stop = Stop { end: Instant::now() + length, early };
    let coming = users::come(&scene, seed, rate, &stop);
    let raging = trouble::rage(&scene, seed, pace, &stop);
    // Nobody comes any more once nothing can be broken or mended.
    let ((), mut users) = tokio::try_join!(raging, async { Ok(coming.await) })?;
    let healed = scene.board.last_repair().max(users.last()).unwrap_or_else(Instant::now);
    let mut since = verdict::Since::new();
    let left = HEALED.saturating_sub(healed.elapsed());
    let calm = verdict::calm(&scene, &mut users, &mut since);
    let calm = tokio::time::timeout(left, calm).await;
    let took = healed.elapsed();
    let mut report = Report {
        promises: Promises::default(),
        facts: Facts::new(),
        paid: Vec::new(),
        open: Vec::new(),
    };
    report.promises.extend(std::mem::take(&mut users.broken));
    let calm = match calm {
        Ok(Ok(())) => Ok(()),
        // For all that was done, something doesn't come again.
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("not within {} s; then {}", HEALED.as_secs(), users.left())),
    };
    if let Err(how) = calm {
        report.promises.broke(Promise::Ends, how);
        report.open = verdict::open(&scene).unwrap_or_else(|error| vec![format!("{error:#}")]);
    } else {
        // Without a repair there is nothing to come to an end after.
        let (much, figure) = match scene.board.last_repair() {
            Some(_) => (1, format!("{:.1} s after", took.as_secs_f64())),
            None => (0, "nothing was broken".to_owned()),
        };
        report.promises.looked(Promise::Ends, much, figure);
        if let Err(error) = verdict::check(&scene, &users, &mut report).await {
            report.promises.broke(Promise::Works, format!("can't be looked at: {error:#}"));
        }
    }
    report.facts.push(("calm after the last repair".to_owned(), format!("{took:.1?}")));
    for (what, when) in since {
        let after = when.duration_since(healed);
        report.facts.push((format!("… {what}"), format!("{after:.1?}")));
    }
    Ok(report)
}

/// The kinds of items, each with how many there are at first.
#[derive(Clone, Debug)]
struct Stock {
    /// Twice what was sold before: a claim finds something to replace its item with.
    sold: (String, u64),
    /// Enough for all.
    plenty: (String, u64),
    /// Not enough for those who want one of these.
    scarce: (String, u64),
    /// It is nowhere.
    nothing: String,
}

impl Stock {
    fn of(goods: Goods, crowd: Crowd) -> Self {
        let of = |count: u64, what: &str| (goods.model(count, what), count);
        Self {
            sold: of(crowd.claimants * 2 + 1, "sold before"),
            plenty: of(crowd.shoppers * 4 + 100, "for all"),
            scarce: of(crowd.shoppers / 32 + 1, "for few"),
            nothing: goods.model(0, "for nobody"),
        }
    }
}

fn prepare<S: Stage>(scene: &Scene<S>, length: Duration) -> Result<()> {
    let Scene { stage, goods, crowd, stock, .. } = scene;
    let databases = stage.databases();
    effects::forget(databases)?;
    scene.board.leaves(goods.left(*crowd));
    goods.enrol(databases, crowd.users())?;
    for (model, count) in [&stock.sold, &stock.plenty, &stock.scarce] {
        shelve(databases, model, *count)?;
    }
    goods.sell(databases, goods.user(crowd.owner()), &stock.sold.0, crowd.claimants)?;
    effects::watch(databases, scene.since, length + HEALED * 10)
}

/// In microseconds since the epoch, by the machine's clock.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or_default()
}

/// In SQL, whether it was no earlier than that.
fn since_then(column: &str, moment: i64) -> String {
    format!("{column} >= 'epoch'::timestamptz + {moment} * interval '1 microsecond'")
}
