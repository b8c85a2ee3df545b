//! When it is calm, and what has become of everything then: by the services' answers, their ledgers,
//! their books, RabbitMQ's tools. Of purchases and refunds that is in [`purchases`], of claims in
//! [`claims`].

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::books::Books;
use super::part::Part;
use super::promises::Promise;
use super::shoppers::Purchase;
use super::sql::{number, rows};
use super::stage::Stage;
use super::users::Users;
use super::{Report, Scene, claims, effects, purchases, since_then, works};

/// Undos wait for a breaker, and for each other: how long after it is calm the books may not balance.
const SETTLED: Duration = Duration::from_secs(12);

/// Between one look and the next.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// Since when what was so.
pub(super) type Since = Vec<(&'static str, Instant)>;

/// Waits until everybody was told something and nothing is under way any more.
pub(super) async fn calm<S: Stage>(
    scene: &Scene<S>,
    users: &mut Users,
    since: &mut Since,
) -> Result<()> {
    let databases = scene.stage.databases();
    scene.stage.ready().await?;
    since.push(("all are ready", Instant::now()));
    users.leave().await?;
    since.push(("nobody waits", Instant::now()));
    let (called, begun) =
        (since_then("created_at", scene.since), since_then("begun_at", scene.since));
    until(async || {
        let calls = format!("(SELECT count(*) FROM deferred WHERE ended_at IS NULL AND {called})");
        let sagas = format!("(SELECT count(*) FROM saga WHERE ended_at IS NULL AND {begun})");
        let mut open = number(&databases[Part::Order as usize], &sagas)?;
        for part in Part::LEDGERS {
            open += number(&databases[part as usize], &calls)?;
        }
        Ok(open == 0)
    })
    .await;
    since.push(("every call and every saga has ended", Instant::now()));
    until(async || {
        // Keys that somebody is at.
        let leased = format!(
            "(SELECT count(*) FROM idempotency
              WHERE state <> 'done' AND lease_until > clock_timestamp() AND {called})"
        );
        let leased = databases.iter().map(|url| number(url, &leased));
        Ok(leased.sum::<Result<i64>>()? == 0)
    })
    .await;
    since.push(("every lease is over", Instant::now()));
    if !scene.stage.mishaps().is_empty() {
        // Whoever was cut off often waits for longer until it comes again.
        until(async || {
            for (part, client) in scene.stage.processes() {
                if scene.stage.is_carried(part) {
                    let health = client.get("/manage/health").try_send().await?.json();
                    if health["components"]["broker"]["status"] != "Work" {
                        return Ok(false);
                    }
                }
            }
            Ok(true)
        })
        .await;
        since.push(("all have RabbitMQ again", Instant::now()));
        until(async || scene.stage.is_drained().await).await;
        since.push(("RabbitMQ is empty", Instant::now()));
    }
    Ok(())
}

/// Asks until it is so. What fails meanwhile is asked again.
pub(super) async fn until(mut ask: impl AsyncFnMut() -> Result<bool>) {
    while !ask().await.unwrap_or(false) {
        sleep(LOOK).await;
    }
}

/// What isn't over, for whoever wants to know why it isn't calm.
pub(super) fn open<S: Stage>(scene: &Scene<S>) -> Result<Vec<String>> {
    let calls =
        "SELECT kind || ' ' || id AS a, state || CASE WHEN held THEN ' held' ELSE '' END AS b,
                format('attempts %s strikes %s not before %s lease until %s sent %s now %s: %s',
                attempts, strikes, not_before, lease_until, sent_at, clock_timestamp(), last_error)
                AS c
         FROM deferred WHERE ended_at IS NULL ORDER BY created_at LIMIT 20";
    let sagas = "SELECT kind || ' ' || id AS a, state AS b,
                format('forward %s fence %s lease until %s now %s: %s',
                forward, fence, lease_until, clock_timestamp(), reason) AS c
         FROM saga WHERE ended_at IS NULL ORDER BY begun_at LIMIT 20";
    let mut lines = Vec::new();
    for (part, open) in [(Part::Store, calls), (Part::Order, calls), (Part::Order, sagas)] {
        for [id, state, rest] in rows(&scene.stage.databases()[part as usize], open)? {
            lines.push(format!("{}: {id} {state} {rest}", part.name()));
        }
    }
    Ok(lines)
}

/// Everybody has what they were told, and nothing else was touched; and everything works.
pub(super) async fn check<S: Stage>(
    scene: &Scene<S>,
    users: &Users,
    report: &mut Report,
) -> Result<()> {
    let words = scene.board.words();
    let answers = words.iter().filter(|(word, _)| !word.ends_with("no answer"));
    let answers = usize::try_from(answers.map(|(_, times)| times).sum::<u64>())?;
    report.promises.looked(Promise::Contract, answers, format!("{answers} answers"));
    let shoppers = users.shopped().iter().filter(|record| record.purchase != Purchase::Unknown);
    let told = users.told().len() + shoppers.count();
    report.promises.looked(Promise::OneWord, told, format!("{told} told something"));
    effects::ended_for_good(scene.stage.databases(), scene.since, &mut report.promises)?;
    purchases::check(scene, users.shopped(), report).await?;
    claims::check(scene, users, report).await?;
    report.paid.extend((0..scene.crowd.claimants).map(|number| scene.goods.order(number)));
    settle(scene, report).await?;
    works::check(scene, report).await?;
    settle(scene, report).await
}

/// Exactly those orders are paid for that should be, and all that is held is held by them.
async fn settle<S: Stage>(scene: &Scene<S>, report: &mut Report) -> Result<()> {
    let paid: BTreeSet<_> = report.paid.iter().map(ToString::to_string).collect();
    let begin = Instant::now();
    loop {
        let books = Books::of(scene.stage.databases(), scene.goods, scene.since)?;
        match books.balance(&paid) {
            Ok(()) => break,
            Err(wrong) if begin.elapsed() > SETTLED => {
                report.promises.broke(Promise::Books, wrong);
                break;
            }
            Err(_) => sleep(LOOK).await,
        }
    }
    report.promises.looked(Promise::Books, paid.len(), format!("{} orders paid for", paid.len()));
    Ok(())
}
