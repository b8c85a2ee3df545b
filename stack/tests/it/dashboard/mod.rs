//! Store's live page, in a real browser.

mod browser;
mod looks;

use std::time::{Duration, SystemTime};

use chrono::DateTime;
use serde_json::{Value, json};
use service::testing::operator::breaker;
use service::testing::until;

use self::browser::Browser;
use crate::world::shop::{MODEL, Promise as _};
use crate::world::{MANAGEMENT_TOKEN, Part, RECOVERY, World};

/// The page shows what has changed within this: a promise.
const PROMPT: Duration = Duration::from_secs(2);

/// How long a crowded machine may take to show something.
const SOON: Duration = Duration::from_secs(15);

/// What is open at Store's page, in this world.
async fn opened(world: &World) -> Browser {
    let browser = Browser::start().await;
    browser.open(&format!("{}/manage/dashboard", world.replica(Part::Store, 0).url())).await;
    browser
}

/// Clicks on the first of these that there is.
fn click(selector: &str) -> String {
    format!("document.querySelector({}).click()", json!(selector))
}

#[tokio::test]
async fn an_open_breaker_is_on_the_page_within_two_seconds_with_the_reason() {
    // Nothing but what is killed is too slow, on a crowded machine either.
    let plan = World::plan().patient().variable("BREAKER_OPEN_MS", "6000");
    let world = plan.start().await;
    let order = world.bought().await;
    let browser = opened(&world).await;
    browser.says(SOON, "Nothing is wrong").await;

    world.kill(Part::Warehouse).await;
    let killed = SystemTime::now();
    browser.says(SOON, "warehouse is away").await;
    let took = killed.elapsed().unwrap();
    assert!(took <= PROMPT, "it was on the page that it is away after {took:?}");
    for caller in [Part::Store, Part::Order] {
        let client = world.client(caller);
        let opened = until(RECOVERY, "its breaker opens", async || {
            if caller == Part::Store {
                world.get(order).send().await;
            } else {
                // Store's own breaker of Order's writes stays closed: Order answers.
                world.buy().send().await;
            }
            let seen = breaker(&client, "warehouse").await;
            (seen["state"] == "open").then_some(seen)
        })
        .await;
        let name = caller.name();
        browser.says(SOON, &format!("{name} → warehouse: breaker open")).await;
        let since = DateTime::parse_from_rfc3339(opened["since"].as_str().unwrap()).unwrap();
        let took = SystemTime::now().duration_since(since.into()).unwrap();
        assert!(took <= PROMPT, "{name}: {took:?}");
        println!("{name}'s breaker was on the page {took:?} after it had opened");
        let lines = "[...document.querySelectorAll('#trouble li')].map((one) => one.textContent)";
        let lines = browser.eval(lines).await;
        let mut lines = lines.as_array().unwrap().iter().map(|line| line.as_str().unwrap());
        let line = lines.find(|line| line.starts_with(&format!("{name} → warehouse"))).unwrap();
        assert!(line.contains("connection refused") && line.contains("probes in"), "{line}");
    }

    world.restart(Part::Warehouse).await;
    until(RECOVERY * 4, "everything is well again", async || {
        world.get(order).send().await;
        world.buy().send().await;
        let said = browser.eval("document.getElementById('trouble').innerText").await;
        said.as_str().unwrap().contains("Nothing is wrong").then_some(())
    })
    .await;
    browser.ends_well().await;
}

#[tokio::test]
async fn a_parked_call_is_shown_with_its_reason_and_retried_or_discarded_from_the_page() {
    let world = World::start().await;
    let [kept, given_up] = [world.bought().await, world.bought().await];
    world.kill(Part::Warranty).await;
    let [kept_claim, lost_claim] = [
        world.claim(kept).send().await.queued(kept),
        world.claim(given_up).send().await.queued(given_up),
    ];
    // As if it had been tried for long.
    until(RECOVERY, "both are parked", async || {
        world.execute(
            Part::Store,
            "UPDATE deferred SET state = 'parked', ended_at = now(), last_error = 'given up after 20'
             WHERE kind = 'claim' AND state = 'pending'",
        );
        let parked = "SELECT count(*) FROM deferred WHERE state = 'parked'";
        (world.number(Part::Store, parked) == 2).then_some(())
    })
    .await;
    let browser = opened(&world).await;
    browser.says(SOON, "2 deferred calls of store parked: claim").await;
    browser.says(SOON, "given up after 20").await;
    world.restart(Part::Warranty).await;

    // Nothing is done before it is confirmed.
    let retry = format!("[aria-label='Retry claim {kept_claim}']");
    browser.eval(&click(&retry)).await;
    browser.until(SOON, "document.getElementById('confirm').open").await;
    browser.press("Escape", 27).await;
    browser.until(SOON, "!document.getElementById('confirm').open").await;
    let state =
        format!("SELECT count(*) FROM deferred WHERE id = '{kept_claim}' AND state = 'parked'");
    assert_eq!(world.number(Part::Store, &state), 1);

    browser.eval(&click(&retry)).await;
    browser.until(SOON, "document.getElementById('confirm').open").await;
    browser.eval(&click("#confirm-yes")).await;
    let claim = world.settled_claim(RECOVERY * 2, kept, kept_claim).await;
    assert_eq!(claim["status"], "DECIDED", "{claim}");
    browser.says(SOON, "1 deferred call of store parked").await;

    browser.eval(&click(&format!("[aria-label='Discard claim {lost_claim}']"))).await;
    browser.until(SOON, "document.getElementById('confirm').open").await;
    browser.eval(&click("#confirm-yes")).await;
    browser.until(SOON, "!document.body.innerText.includes('store parked')").await;
    let gone = format!(
        "SELECT count(*) FROM deferred WHERE id = '{lost_claim}' AND discarded_at IS NOT NULL"
    );
    assert_eq!(world.number(Part::Store, &gone), 1);
    browser.ends_well().await;
}

/// What Order gave up goes by Store: the browser is let in there alone.
#[tokio::test]
async fn what_another_service_has_parked_is_retried_through_store() {
    let world = World::plan().locked().start().await;
    let order = world.bought().await;
    world.kill(Part::Warranty).await;
    let answer = world.refund(order).send().await;
    assert_eq!(answer.status, 503, "{answer:?}");
    world.execute(
        Part::Order,
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at, last_error)
         VALUES ('00000000-0000-4000-8000-000000000001', 'saga.resume',
                 '{\"saga\": \"00000000-0000-4000-8000-000000000002\"}', 'parked', now(), now(),
                 'given up after 200')",
    );
    world.restart(Part::Warranty).await;
    let browser = opened(&world).await;
    unlock(&browser, MANAGEMENT_TOKEN).await;
    browser.says(SOON, "1 deferred call of order parked: saga.resume").await;
    let id = "00000000-0000-4000-8000-000000000001";
    browser.eval(&click(&format!("[aria-label='Retry saga.resume {id}']"))).await;
    browser.until(SOON, "document.getElementById('confirm').open").await;
    browser.eval(&click("#confirm-yes")).await;
    let parked = format!("SELECT count(*) FROM deferred WHERE id = '{id}' AND state <> 'parked'");
    until(SOON, "it is begun again", async || {
        (world.number(Part::Order, &parked) == 1).then_some(())
    })
    .await;
    // What was said of it is of then: given up once more, nothing is on its way.
    browser.until(SOON, "!document.body.innerText.includes('saga.resume parked')").await;
    browser.until(SOON, "!document.body.innerText.includes('order parked')").await;
    let again = format!(
        "UPDATE deferred SET state = 'parked', ended_at = now(), token = NULL, lease_until = NULL
         WHERE id = '{id}'"
    );
    world.execute(Part::Order, &again);
    browser.says(SOON, "1 deferred call of order parked: saga.resume").await;
    let said = "document.querySelector('#deferred .outcome')?.textContent ?? ''";
    assert_eq!(browser.eval(said).await, "");
    browser.ends_well().await;
}

/// Shows a token, as an operator does.
async fn unlock(browser: &Browser, token: &str) {
    browser.until(SOON, "!document.getElementById('locked').hidden").await;
    browser.until(SOON, "document.activeElement.id === 'token'").await;
    browser.types(token).await;
    browser.press("Enter", 13).await;
}

#[tokio::test]
async fn the_page_of_a_locked_store_says_nothing_until_it_is_shown_a_token_of_operators() {
    let world = World::plan().locked().start().await;
    let order = world.bought().await;
    let browser = opened(&world).await;
    browser.says(SOON, "This store is locked").await;
    let all = browser.eval("document.body.innerText").await;
    assert!(!all.as_str().unwrap().contains("warehouse"), "{all}");
    unlock(&browser, "not-a-token-not-a-token-not-a-token").await;
    browser.says(SOON, "not a valid one").await;
    // Nor is one that no request can carry, as what a word processor has made of one.
    browser.eval("document.getElementById('locked-why').textContent = ''").await;
    unlock(&browser, "not\u{2013}a\u{2013}token\u{2013}not\u{2013}a\u{2013}token\u{2026}").await;
    browser.says(SOON, "not a valid one").await;
    unlock(&browser, MANAGEMENT_TOKEN).await;
    browser.says(SOON, "Nothing is wrong").await;
    // It is in the tab alone, and the page goes on with it.
    let kept = browser.eval("[localStorage.length, document.cookie, location.href]").await;
    assert_eq!((&kept[0], &kept[1]), (&json!(0), &json!("")));
    assert!(!kept[2].as_str().unwrap().contains(MANAGEMENT_TOKEN));
    browser.eval("location.reload()").await;
    browser.says(SOON, "Nothing is wrong").await;
    // Without it nothing of what was shown is left, not even where nobody sees it.
    explained(&browser, &order.to_string()).await;
    browser.says(SOON, "asks warehouse").await;
    browser.eval("document.querySelector('#connection button').click()").await;
    browser.says(SOON, "This store is locked").await;
    let left = browser.eval("document.body.textContent").await;
    assert!(!left.as_str().unwrap().contains("warehouse"), "{left}");
    assert_eq!(browser.eval("document.getElementById('told').textContent").await, "");

    // Nor does anything but the page itself come without a token.
    let client = world.client(Part::Store);
    for (target, status) in [
        ("/manage/dashboard", 200),
        ("/manage/dashboard/", 200),
        ("/manage/dashboard/app.js", 200),
        ("/manage/dashboard/live", 401),
        ("/manage/dashboard/other.js", 401),
        ("/manage/overview", 401),
    ] {
        assert_eq!(client.get(target).send().await.status, status, "{target}");
    }
    let path = format!("/manage/dashboard/order/deferred/{}/retry", uuid::Uuid::new_v4());
    assert_eq!(client.post(path).send().await.status, 401);
    let order = world.client(Part::Order);
    assert_eq!(order.get("/manage/dashboard").send().await.status, 401);
    browser.ends_well().await;
}

#[tokio::test]
async fn the_page_is_told_to_take_nothing_from_elsewhere_and_is_told_texts_as_texts() {
    let world = World::start().await;
    let page = world.client(Part::Store).get("/manage/dashboard").send().await;
    let policy = page.header("content-security-policy").unwrap().to_owned();
    for part in
        ["default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(part), "no {part} in {policy}");
    }
    assert!(!policy.contains("unsafe"), "{policy}");
    assert_eq!(page.header("cache-control"), Some("no-store"));
    // What somebody else has said is shown as it is.
    world.execute(
        Part::Store,
        "INSERT INTO deferred (id, kind, payload, state, not_before, ended_at, last_error)
         VALUES (gen_random_uuid(), 'claim', '{}', 'parked', now(), now(),
                 '<img src=x onerror=\"window.hit = 1\"><script>window.hit = 1</script>')",
    );
    let browser = opened(&world).await;
    browser.says(SOON, "<img src=x onerror=").await;
    assert_eq!(browser.eval("window.hit ?? 0").await, 0);
    assert_eq!(browser.eval("document.querySelectorAll('#all img, #all script').length").await, 0);
    browser.ends_well().await;
}

#[tokio::test]
async fn the_page_survives_the_loss_and_the_return_of_every_service_of_postgres_and_of_store() {
    let world = World::plan().own_postgres().impatient().start().await;
    world.bought().await;
    let browser = opened(&world).await;
    browser.says(SOON, "Nothing is wrong").await;
    let well = async || {
        until(RECOVERY * 3, "everything is well again", async || {
            world.buy().try_send().await.ok();
            world.list().try_send().await.ok();
            let said = browser.eval("document.getElementById('trouble').innerText").await;
            said.as_str().unwrap().contains("Nothing is wrong").then_some(())
        })
        .await;
        browser
            .until(SOON, "document.getElementById('connection').innerText.startsWith('Live')")
            .await;
    };
    for part in [Part::Order, Part::Warehouse, Part::Warranty] {
        world.kill(part).await;
        let name = part.name();
        browser.says(SOON, &format!("{name} is away")).await;
        browser.says(SOON, "connection refused").await;
        // The page goes on with the others.
        let live = "document.getElementById('connection').innerText.startsWith('Live')";
        assert_eq!(browser.eval(live).await, true);
        world.restart(part).await;
        well().await;
    }
    world.freeze(Part::Warranty);
    browser.says(SOON, "warranty is away").await;
    browser.says(SOON, "no answer within 1000 ms").await;
    world.thaw(Part::Warranty);
    well().await;

    world.postgres().kill();
    browser.says(SOON, "The database of store gives no answer").await;
    browser.says(SOON, "The database of order gives no answer").await;
    let known = browser.eval("document.getElementById('deferred').textContent").await;
    assert!(known.as_str().unwrap().contains("unknown for"), "{known}");
    world.postgres().start();
    well().await;

    for killed in [true, false] {
        if killed {
            world.kill(Part::Store).await;
        } else {
            world.terminate(Part::Store).await;
        }
        browser.says(SOON, "Store is away for").await;
        browser.says(SOON, "trying again").await;
        assert_eq!(browser.eval("document.title").await, "Store is away – Store, live");
        // What was known stays to be read.
        let map = browser.eval("document.querySelectorAll('#map .service').length").await;
        assert_eq!(map, Value::from(4));
        // And is not taken for what is so now.
        let now = browser.eval("document.getElementById('trouble').innerText").await;
        let now = now.as_str().unwrap();
        assert!(now.contains("store is away") && !now.contains("Nothing is wrong"), "{now}");
        let map = browser.eval("document.querySelector('#map svg').ariaLabel").await;
        let map = map.as_str().unwrap();
        assert!(map.contains("store: away") && map.contains("order: unknown"), "{map}");
        world.restart(Part::Store).await;
        well().await;
    }
    // Whom it has given up it lets go: a browser has few connections to a server, and those that a
    // Store took that was frozen are answered when it comes to itself.
    browser
        .eval(
            "window.asked = [], window.real = window.fetch, window.fetch = (what, how) => {
               window.asked.push(how.signal); return window.real(what, how); }, 0",
        )
        .await;
    world.freeze(Part::Store);
    browser.says(SOON, "it says nothing").await;
    browser.until(SOON, "window.asked.length >= 2").await;
    let let_go = "window.asked.slice(0, -1).every((signal) => signal.aborted)";
    assert_eq!(browser.eval(let_go).await, true);
    world.thaw(Part::Store);
    well().await;
    browser.ends_well().await;
}

#[tokio::test]
async fn nobody_is_asked_while_nobody_looks_and_once_however_many_do() {
    let world = World::plan().proxied(Part::Warehouse).start().await;
    let asked = || world.proxy(Part::Warehouse).count("GET /manage/overview");
    assert_eq!(asked(), 0);
    let url = format!("{}/manage/dashboard", world.replica(Part::Store, 0).url());
    let (one, other) = tokio::join!(Browser::start(), Browser::start());
    for browser in [&one, &other] {
        browser.open(&url).await;
        browser.says(SOON, "Nothing is wrong").await;
    }
    let (before, start) = (asked(), std::time::Instant::now());
    until(SOON, "it is asked ten times", async || (asked() >= before + 10).then_some(())).await;
    // Twice a second: two pages that had it asked each would take half of this.
    assert!(start.elapsed() >= Duration::from_millis(3500), "{:?}", start.elapsed());
    // It isn't what users' calls go by.
    let breakers = world.client(Part::Store).get("/manage/resilience").send().await.ok();
    assert!(!breakers.to_string().contains("/manage"), "{breakers}");
    let metrics = world.client(Part::Store).get("/metrics").send().await.text();
    assert!(!metrics.contains(r#"resilience_call_duration_seconds_count{dependency="warehouse""#));
    one.ends_well().await;
    other.ends_well().await;
    // The last question may be on its way.
    let mut last = asked();
    until(SOON, "nobody is asked any more", async || {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let now = asked();
        (std::mem::replace(&mut last, now) == now).then_some(())
    })
    .await;
    assert_eq!(world.left(MODEL), 10_000);
}

#[tokio::test]
async fn since_when_a_service_is_away_is_not_guessed_from_before_anybody_looked() {
    let world = World::plan().proxied(Part::Warranty).start().await;
    let asked = || world.proxy(Part::Warranty).count("GET /manage/overview");
    let browser = opened(&world).await;
    browser.says(SOON, "Nothing is wrong").await;
    world.kill(Part::Warranty).await;
    browser.says(SOON, "warranty is away for").await;
    browser.open("about:blank").await;
    let mut last = asked();
    until(SOON, "nobody has been asked for some time", async || {
        tokio::time::sleep(Duration::from_millis(2200)).await;
        let now = asked();
        (std::mem::replace(&mut last, now) == now).then_some(())
    })
    .await;
    // It was there in between, and nobody looked.
    world.restart(Part::Warranty).await;
    world.kill(Part::Warranty).await;
    let moment = SystemTime::now();
    let page = format!("{}/manage/dashboard", world.replica(Part::Store, 0).url());
    browser.open(&page).await;
    browser.says(SOON, "warranty is away for at least").await;
    let since = browser.eval("document.querySelector('#trouble li time').dateTime").await;
    let since = DateTime::parse_from_rfc3339(since.as_str().unwrap()).unwrap();
    // What the page has of it is in whole milliseconds.
    let moment = moment - Duration::from_millis(1);
    assert!(SystemTime::from(since) >= moment, "away since {since}");
    browser.ends_well().await;
}

/// Asks the page for the story of an order.
async fn explained(browser: &Browser, id: &str) {
    browser.eval("document.getElementById('order').value = ''").await;
    browser.eval("document.getElementById('order').focus()").await;
    browser.types(id).await;
    browser.press("Enter", 13).await;
}

#[tokio::test]
async fn an_order_is_explained_on_the_page_and_who_gives_no_answer_is_a_gap() {
    let world = World::start().await;
    let order = world.bought().await;
    assert_eq!(world.claim(order).send().await.status, 200);
    let [lost] = [world.bought().await];
    world.kill(Part::Warranty).await;
    let claim = world.claim(lost).send().await.queued(lost);
    let browser = opened(&world).await;
    browser.says(SOON, "warranty is away").await;
    explained(&browser, &claim.to_string()).await;
    browser.says(SOON, "warranty gives no answer").await;
    browser.says(SOON, "paid; one thing is still to happen; with gaps").await;
    browser.says(SOON, "Still to happen").await;
    world.restart(Part::Warranty).await;
    // One that is frozen says nothing for as long as it is asked: the launcher waits for ten seconds.
    world.freeze(Part::Warranty);
    let start = std::time::Instant::now();
    let answer = world.client(Part::Store).get(format!("/manage/explain/{lost}")).send().await.ok();
    assert!(start.elapsed() < Duration::from_secs(9), "{:?}", start.elapsed());
    assert_eq!(answer["gaps"][0]["service"], "warranty", "{answer:#}");
    world.thaw(Part::Warranty);
    world.settled_claim(RECOVERY * 2, lost, claim).await;
    explained(&browser, &order.to_string()).await;
    browser.says(SOON, "the warranty is USE_WARRANTY").await;
    browser.says(SOON, "place take: asks warehouse").await;
    world.owes_nothing().await;
    for order in [order, lost] {
        world.explains(order, "of the page").await;
    }
    let answer = world.client(Part::Store).get("/manage/explain/nonsense").send().await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let unknown = uuid::Uuid::new_v4();
    world.explains(unknown, "never seen").await;
    browser.ends_well().await;
}
