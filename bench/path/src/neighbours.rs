//! What else the machine did meanwhile.

use std::fs;
use std::time::Duration;

use bench_ground::Postgres;
use stack_load::watch;

use crate::shop::{Shop, of_database};

/// With more than this of the cores, what is measured is the neighbours. Some of the kernel's work is
/// nobody's.
const CROWDED: f64 = 0.2;

/// Processor time at one moment: of the machine, what of that was used, and what of that is ours.
pub(crate) struct Moment {
    all: f64,
    used: f64,
    ours: Duration,
}

impl Moment {
    pub(crate) fn now(shops: [&Shop; 2], postgres: &Postgres) -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1).take(8);
        let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
        let all: f64 = ticks.iter().sum();
        // Idle, and idle until a disk answers.
        let rest: f64 = ticks.iter().skip(3).take(2).sum();
        let own = watch::cpu(std::process::id().cast_signed()).unwrap_or_default();
        let ours = shops.map(Shop::cpu).into_iter().sum::<Duration>()
            + of_database(postgres).into_values().sum::<Duration>()
            + own;
        Self { all, used: all - rest, ours }
    }

    /// What others had of the cores since then, of 1.
    pub(crate) fn others_since(&self, before: &Self) -> f64 {
        // Ticks are hundredths of a second.
        let ours = self.ours.saturating_sub(before.ours).as_secs_f64() * 100.0;
        (self.used - before.used - ours) / (self.all - before.all)
    }
}

/// For the top of the page, where it was too much.
pub(crate) fn warning(others: f64) -> String {
    if others <= CROWDED {
        return String::new();
    }
    format!(
        "\n**Something else was running, and had {:.0} % of the cores: these are no figures. Run it again \
         on an idle machine.**\n",
        others * 100.0
    )
}
