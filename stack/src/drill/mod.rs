//! `drill`: the promises, kept before one's eyes.
//!
//! The storm is [`storm`], which the chaos tests run, too. Here are the terminal, the launcher
//! that breaks and mends ([`stage`]), what that knows of it ([`drilled`]), and a store of its own where
//! none runs ([`own`]).

mod drilled;
mod own;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use storm::board::Board;
use storm::trouble::Pace;
use storm::{Plan, Report};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

pub(crate) use self::drilled::Drilled;
use self::own::Own;
use self::stage::Launched;
use crate::control::{self, Answer, Request};
use crate::signals::Signals;
use crate::state::Paths;
use crate::terminal::{say, say_folded};

/// Users a second.
const RATE: u32 = 10;

/// How many breaches of each promise are told one by one.
const TOLD: usize = 5;

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// For how long users come and parts break, in seconds
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Repeats the choices of an earlier one [default: any]
    #[arg(long)]
    seed: Option<u64>,
}

impl Options {
    pub(crate) fn run(self, paths: &Paths) -> Result<ExitCode> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("could not start the runtime")?;
        let outcome = runtime.block_on(self.wherever(paths));
        // The launcher may be at something still: it needs nobody to wait for it.
        runtime.shutdown_background();
        outcome
    }

    /// On the store that runs, or on one of its own.
    async fn wherever(self, paths: &Paths) -> Result<ExitCode> {
        let mut signals = Signals::new()?;
        if control::ask(paths, &Request::Status)?.is_some() {
            return self.on(paths, &mut signals).await;
        }
        let own = Own::start(paths, &mut signals).await?;
        let outcome = self.on(own.paths(), &mut signals).await;
        own.end().await?;
        outcome
    }

    async fn on(self, paths: &Paths, signals: &mut Signals) -> Result<ExitCode> {
        let stage = Arc::new(Launched::find(paths).await?);
        // However this ends, the launcher mends what it has broken.
        let _drill = match control::hold(paths, &Request::Drill)? {
            Some((Answer::Done { .. }, held)) => held,
            Some((Answer::Failed { message }, _)) => bail!(message),
            _ => bail!("the launcher has ended"),
        };
        let seed = self.seed.unwrap_or_else(|| Uuid::new_v4().as_u64_pair().0 >> 32);
        let plan =
            Plan { seed, length: Duration::from_secs(self.seconds), rate: RATE, pace: Pace::DRILL };
        say_folded(&format!(
            "drill, seed {seed}: {} s of purchases, refunds and claims by made-up users, while parts are \
             killed, stopped and frozen (Ctrl-C ends it early)",
            self.seconds
        ));
        let board = Arc::new(Board::default());
        let report = watch(&stage, plan, &board, signals).await;
        let report = report.inspect_err(|_| {
            say_folded(&format!("left in the databases: {}", board.leavings()));
        })?;
        say("");
        for line in story(&board) {
            say_folded(&line);
        }
        say(&format!("\n{}", report.promises));
        for breach in report.promises.breaches(TOLD).chain(report.open.iter().cloned()) {
            say(&format!("  {breach}"));
        }
        let held = report.promises.held();
        let verdict = if held {
            "every promise held"
        } else if report.promises.is_broken() {
            "NOT every promise held"
        } else {
            "none is broken, but NOT every promise was tried: a longer drill tries more"
        };
        say(&format!(
            "{verdict}; again: cargo run -- drill --seed {seed} --seconds {}",
            self.seconds
        ));
        Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// A line a second, until there is a verdict.
async fn watch(
    stage: &Arc<Launched>,
    plan: Plan,
    board: &Arc<Board>,
    signals: &mut Signals,
) -> Result<Report> {
    let (early, over) = watch::channel(false);
    // On a thread of its own: while it waits for a database, this goes on, and Ctrl-C is heard.
    let mut storm = {
        let (stage, board) = (Arc::clone(stage), Arc::clone(board));
        spawn_blocking(move || Handle::current().block_on(storm::run(stage, plan, board, over)))
    };
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let begin = Instant::now();
    loop {
        tokio::select! {
            report = &mut storm => return report.context("the drill broke down")?,
            () = signals.next() => {
                if early.send_replace(true) {
                    bail!("ended without a verdict; the launcher starts what is down");
                }
                say("ending early: mending, and then looking (Ctrl-C again: at once)");
            }
            _ = second.tick() => {
                for trouble in board.take_trouble() {
                    say_folded(&format!("        {trouble}"));
                }
                say_folded(&format!("{:>4} s  {}", begin.elapsed().as_secs(), board.line()));
            }
        }
    }
}

/// What happened, what users heard, and what is left.
fn story(board: &Board) -> Vec<String> {
    let mut story = Vec::new();
    let mut line = |what: &str, all: &[String]| {
        let all = if all.is_empty() { "nothing".to_owned() } else { all.join(", ") };
        story.push(format!("{what}: {all}"));
    };
    let counted = |(what, times): (String, u64)| format!("{what} {times}");
    let blows: Vec<_> = board.blows().into_iter().map(counted).collect();
    line("broken on purpose", &blows);
    let words = board.words();
    for what in ["purchase", "list", "refund", "claim"] {
        let heard = words.iter().filter_map(|(word, times)| {
            let word = word.strip_prefix(what)?.strip_prefix(": ")?;
            Some(counted((word.to_owned(), *times)))
        });
        line(&format!("told to those who asked for a {what}"), &heard.collect::<Vec<_>>());
    }
    line("left in the databases", &[board.leavings()]);
    story
}
