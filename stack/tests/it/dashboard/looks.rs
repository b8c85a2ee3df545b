//! How the page looks, to whoever sees it, and to whoever doesn't.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use service::testing::until;

use super::browser::{Browser, Look};
use super::{SOON, explained, opened};
use crate::world::shop::Promise as _;
use crate::world::{Part, RECOVERY, World};

/// A phone and a desk, by day and by night.
const LOOKS: [Look; 4] = [
    Look { width: 390, dark: false },
    Look { width: 390, dark: true },
    Look { width: 1440, dark: false },
    Look { width: 1440, dark: true },
];

/// What is cut or stands on something else: of each text whose box is, what it says.
const ASKEW: &str = r"(() => {
  const wrong = [];
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) wrong.push('the page is wider than its window');
  const shown = [...document.querySelectorAll('#all *, header *')].filter((one) =>
    !one.closest('.unseen, .exact, svg') && one.checkVisibility() && one.childElementCount === 0 && one.textContent.trim());
  for (const one of shown) {
    const { left, right } = one.getBoundingClientRect();
    if (left < -0.5 || right > width + 0.5) wrong.push(`cut: ${one.textContent}`);
    if (one.scrollWidth > one.clientWidth + 1 && getComputedStyle(one).display !== 'inline') wrong.push(`cut: ${one.textContent}`);
  }
  const boxes = (of) => [...document.querySelectorAll(of)].map((one) => [one, one.getBoundingClientRect()]);
  const meets = (a, b) => a.left < b.right - 0.5 && b.left < a.right - 0.5 && a.top < b.bottom - 0.5 && b.top < a.bottom - 0.5;
  const apart = (all) => all.forEach(([one, a], at) => all.slice(at + 1).forEach(([other, b]) => {
    if (meets(a, b)) wrong.push(`overlap: ${one.parentNode.textContent} and ${other.parentNode.textContent}`);
  }));
  apart(boxes('#map .service > rect, #map .label'));
  for (const row of document.querySelectorAll('.rows > li, header, .cards > li')) {
    apart([...row.children].filter((one) => one.getBoundingClientRect().width).map((one) => [one, one.getBoundingClientRect()]));
  }
  for (const box of document.querySelectorAll('#map .service, #map .call')) {
    const { left, right } = box.querySelector('rect').getBoundingClientRect();
    apart([...box.querySelectorAll('text, svg')].map((one) => [one, one.getBoundingClientRect()]));
    for (const text of box.querySelectorAll('text, svg')) {
      const inner = text.getBoundingClientRect();
      if (inner.left < left || inner.right > right) wrong.push(`out of its box: ${box.textContent}`);
    }
  }
  return wrong;
})()";

/// A store in which much is wrong, and a page that shows it.
async fn troubled(world: &World) -> Browser {
    let orders = world.bought_many(3).await;
    let browser = opened(world).await;
    browser.says(SOON, "Nothing is wrong").await;
    for order in &orders {
        world.list().send().await;
        world.get(*order).send().await;
    }
    world.kill(Part::Warranty).await;
    for order in &orders {
        world.claim(*order).send().await.queued(*order);
        world.refund(*order).send().await;
    }
    world.execute(
        Part::Store,
        "UPDATE deferred SET state = 'parked', ended_at = now() WHERE id IN
         (SELECT id FROM deferred WHERE kind = 'claim' AND state = 'pending' LIMIT 1)",
    );
    world.execute(
        Part::Order,
        "INSERT INTO saga (id, kind, key, input, state, forward, reason, dependency)
         VALUES (gen_random_uuid(), 'return', gen_random_uuid(), '{}', 'stuck', true,
                 'warehouse answers 500 for the 200th time: the item is not one that it knows', 'warehouse')",
    );
    until(RECOVERY, "breakers are open", async || {
        world.list().send().await;
        world.buy().send().await;
        let said = browser.eval("document.getElementById('trouble').innerText").await;
        let said = said.as_str().unwrap();
        (said.contains("store → warranty: breaker open") && said.contains("order → warranty"))
            .then_some(())
    })
    .await;
    browser.says(SOON, "stuck").await;
    browser.says(SOON, "parked").await;
    explained(&browser, &orders[0].to_string()).await;
    browser.says(SOON, "Still to happen").await;
    browser
}

/// Nothing is cut, and nothing is on top of something else.
async fn is_straight(browser: &Browser, look: Look) {
    browser.look(look).await;
    // What is drawn by the width is drawn anew.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let wrong = browser.eval(ASKEW).await;
    assert_eq!(wrong, Value::Array(Vec::new()), "{look:?}");
}

/// Everything that can be used is come to by the keyboard alone, and is seen to be.
async fn is_come_to(browser: &Browser) {
    // What is drawn may change while it is gone through.
    let all = "[...document.querySelectorAll('a, button, summary, input, [tabindex=\"0\"]')]
        .filter((one) => one.checkVisibility() && !one.closest('dialog'))";
    let count = browser.eval(&format!("{all}.length")).await.as_u64().unwrap();
    assert!(count > 20, "{count}");
    browser
        .eval(&format!(
            "document.body.focus(), window.met = new Set(), window.dim = [], window.were = {all}, 0"
        ))
        .await;
    for _ in 0..count * 2 {
        browser.press("Tab", 9).await;
        browser
            .eval(
                "(() => { const one = document.activeElement; if (one === document.body) return;
                  window.met.add(one);
                  if (getComputedStyle(one).outlineStyle === 'none') window.dim.push(one.outerHTML); })()",
            )
            .await;
    }
    // What has come behind the focus meanwhile can't have been come to.
    let missed = browser
        .eval(&format!(
            "{all}.filter((one) => window.were.includes(one) && !window.met.has(one))
                .map((one) => one.outerHTML)"
        ))
        .await;
    assert_eq!(missed, Value::Array(Vec::new()), "not come to");
    assert_eq!(browser.eval("window.dim").await, Value::Array(Vec::new()), "focus isn't seen");
}

#[tokio::test]
async fn nothing_of_the_page_is_cut_or_overlaps_and_all_of_it_is_come_to_by_keyboard() {
    let world = World::start().await;
    let browser = troubled(&world).await;
    for look in LOOKS {
        is_straight(&browser, look).await;
    }
    is_come_to(&browser).await;
    browser.ends_well().await;
}

/// Where pictures go, and whence axe-core is taken.
fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/page")
}

#[tokio::test]
#[ignore = "make page: fetches axe-core, and takes pictures for people to look at"]
async fn the_page_has_no_serious_finding_of_axe_and_is_pictured() {
    let axe = fs::read_to_string(target().join("axe.min.js")).expect("make page fetches it");
    let world = World::start().await;
    let browser = troubled(&world).await;
    for look in LOOKS {
        browser.look(look).await;
        let name = format!("{}-{}.png", look.width, if look.dark { "dark" } else { "light" });
        browser.picture(&target().join(name), None).await;
        // As much as a README has room for.
        let (name, height) = if look.width < 600 { ("phone", 844) } else { ("desk", 960) };
        if look.dark == (look.width < 600) {
            browser.picture(&target().join(format!("{name}.png")), Some(height)).await;
        }
        is_straight(&browser, look).await;
        has_no_finding(&browser, &axe, look).await;
    }
    // Nor has it when nothing of it is known any more.
    world.kill(Part::Store).await;
    browser.says(SOON, "Store is away for").await;
    for look in LOOKS {
        is_straight(&browser, look).await;
        has_no_finding(&browser, &axe, look).await;
        let name = format!("{}-{}-away.png", look.width, if look.dark { "dark" } else { "light" });
        browser.picture(&target().join(name), None).await;
    }
    browser.ends_well().await;
}

/// Nothing that axe takes to be serious.
async fn has_no_finding(browser: &Browser, axe: &str, look: Look) {
    let script = format!(
        "(async () => {{ {axe};
          const found = await axe.run(document, {{ resultTypes: ['violations'] }});
          return found.violations.map((one) => `${{one.impact}}: ${{one.id}}: ${{one.help}}: ${{one.nodes.map((node) => node.html + ' ' + node.failureSummary).join(' | ')}}`);
        }})()"
    );
    let found = browser.eval(&script).await;
    for one in found.as_array().unwrap() {
        let one = one.as_str().unwrap();
        println!("{look:?}: {one}");
        assert!(!one.starts_with("serious") && !one.starts_with("critical"), "{look:?}: {one}");
    }
}
