//! What the pages claim, where a doctest can't hold it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use metrics::{
    Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
    with_local_recorder,
};
use resilience::Settings;

const README: &str = include_str!("../../README.md");
const BREAKER: &str = include_str!("../../docs/breaker.md");
const METRICS: &str = include_str!("../../docs/metrics.md");

/// The cells of all tables, row by row.
fn rows(page: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.map(|row| row.split('|').map(str::trim).collect())
}

fn code(cell: &str) -> Option<&str> {
    cell.strip_prefix('`')?.strip_suffix('`')
}

#[test]
fn every_page_is_linked_and_says_when_not_to_use_what_it_is_about() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut pages = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(README.contains(&format!("]: docs/{name}\n")), "{name} isn't linked");
        let page = fs::read_to_string(&path).unwrap();
        let warns = page.contains("\n## When not to use it\n");
        assert!(warns || name == "terms.md", "{name} doesn't say when not to use it");
        pages += 1;
    }
    assert_eq!(README.matches("]: docs/").count(), pages, "a link to a page that isn't there");
}

#[test]
fn defaults_of_a_breaker_are_those_of_its_page() {
    let settings = format!("{:?}", Settings::new());
    let mut found = 0;
    for row in rows(BREAKER) {
        let [name, default, _] = row[..] else { continue };
        let (Some(name), Some((number, unit))) = (code(name), default.split_once(' ')) else {
            continue;
        };
        let value = if unit == "s" { format!("{number}s") } else { number.to_owned() };
        let claim = match name {
            "consecutive_failures" => format!("\"{value} failures in a row\""),
            "slow_call" => format!("slow_call: Some({value})"),
            _ => format!("{name}: {value},"),
        };
        assert!(settings.contains(&claim), "{claim} isn't in {settings}");
        found += 1;
    }
    assert_eq!(found, 8, "settings with a number for a default");
}

/// Kind and name of what is described.
#[derive(Default)]
struct Described(Mutex<BTreeSet<(&'static str, String)>>);

impl Described {
    fn add(&self, kind: &'static str, name: &KeyName) {
        self.0.lock().unwrap().insert((kind, name.as_str().to_owned()));
    }
}

impl Recorder for Described {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add("counter", &name);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add("gauge", &name);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        self.add("histogram", &name);
    }

    fn register_counter(&self, _: &Key, _: &Metadata<'_>) -> Counter {
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn every_metric_is_in_the_table_and_the_table_holds_no_other() {
    let described = Described::default();
    with_local_recorder(&described, resilience::metrics::describe);
    let described = described.0.into_inner().unwrap();
    let table: BTreeSet<_> = rows(METRICS)
        .filter_map(|row| match row[..] {
            [name, kind, ..] => Some((kind, code(name)?.to_owned())),
            _ => None,
        })
        .collect();
    assert_eq!(described, table);
}
