//! Store and the three behind it, or the floor, with databases of their own on the server of both.

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use backing::port;
use bench_ground::{Database, Postgres};
use diesel::connection::SimpleConnection as _;
use service::migrate;
use stack_load::bulk::Bulk;
use stack_load::{Lines, watch};
use uuid::Uuid;

use crate::process::{Process, url};

const PARTS: [&str; 4] = ["store", "order", "warehouse", "warranty"];

/// Nobody else is in its databases.
pub(crate) const BULK: Bulk = Bulk::tagged(0);

/// Users who have so many orders each; so many of them for each number.
pub(crate) const LENGTHS: [u64; 3] = [1, 20, 100];
pub(crate) const READERS: u64 = 64;

/// Users who buy, claim and give back.
pub(crate) const BUYERS: u64 = 256;

/// Kinds of items: users who want the same wait for each other's commit.
pub(crate) const KINDS: u64 = 64;

pub(crate) struct Shop {
    processes: Vec<Process>,
    databases: [Database; 4],
    /// Orders that there are.
    orders: u64,
    folder: PathBuf,
}

impl Shop {
    /// The four, as they are shipped.
    pub(crate) fn store(postgres: &Postgres) -> Self {
        let mut shop = Self::empty(postgres);
        let ports = port::free(PARTS.len()).expect("ports");
        for (number, part) in PARTS.into_iter().enumerate() {
            let mut variables: Vec<_> = PARTS
                .iter()
                .zip(&ports)
                .map(|(part, port)| (format!("{}_URL", part.to_uppercase()), url(*port)))
                .collect();
            let database = shop.databases[number].url().to_owned();
            variables.push(("DATABASE_URL".to_owned(), database));
            shop.processes.push(Process::start(part, ports[number], &shop.folder, &variables));
        }
        shop
    }

    pub(crate) fn floor(postgres: &Postgres) -> Self {
        let mut shop = Self::empty(postgres);
        let variable = |(part, database): (&str, &Database)| {
            (format!("{}_DATABASE_URL", part.to_uppercase()), database.url().to_owned())
        };
        let variables: Vec<_> = PARTS.into_iter().zip(&shop.databases).map(variable).collect();
        let port = port::free(1).expect("a port")[0];
        shop.processes.push(Process::start("floor", port, &shop.folder, &variables));
        shop
    }

    /// Nobody serves in it.
    fn empty(postgres: &Postgres) -> Self {
        let folder = std::env::temp_dir().join(format!("bench-path-{}", Uuid::new_v4().simple()));
        fs::create_dir(&folder).expect("a folder");
        let databases = PARTS.map(|_| postgres.database());
        let schemas =
            [&store::MIGRATIONS, &order::MIGRATIONS, &warehouse::MIGRATIONS, &warranty::MIGRATIONS];
        for (database, schema) in databases.iter().zip(schemas) {
            migrate::up(database.url(), schema).expect("its schema");
        }
        let mut shop = Self { processes: Vec::new(), databases, orders: 0, folder };
        let readers = READERS * LENGTHS.len() as u64;
        shop.execute(0, &BULK.users(&(0..readers + BUYERS)));
        shop.execute(
            2,
            &format!(
                "INSERT INTO items (model, size, available_count)
                 SELECT 'Brick ' || number, 'M', 100000000
                 FROM generate_series(0, {KINDS} - 1) AS number"
            ),
        );
        for (number, length) in LENGTHS.iter().enumerate() {
            let (first, reader) = (shop.orders, READERS * number as u64);
            shop.sell(READERS * length, &format!("{reader} + (number - {first}) / {length}"));
        }
        for number in 0..PARTS.len() {
            // What the filling leaves behind isn't to be measured.
            shop.execute(number, "VACUUM ANALYZE");
        }
        shop.execute(0, "CHECKPOINT");
        shop
    }

    pub(crate) async fn ready(&mut self) {
        for process in &mut self.processes {
            process.ready().await;
        }
    }

    pub(crate) fn lines(&self) -> Lines {
        self.processes[0].lines()
    }

    fn execute(&self, number: usize, statements: &str) {
        self.databases[number].connect().batch_execute(statements).expect("it is done");
    }

    /// So many more orders that are paid for. The number of each one's user is an SQL expression.
    fn sell(&mut self, count: u64, user: &str) -> Range<u64> {
        let sold = self.orders..self.orders + count;
        let kind = format!("(SELECT id FROM items WHERE model = 'Brick ' || number % {KINDS})");
        self.execute(1, &BULK.orders(&sold, &BULK.user_of(user)));
        self.execute(2, &BULK.held(&sold, &kind));
        self.execute(3, &BULK.warranties(&sold));
        self.orders = sold.end;
        sold
    }

    /// So many more orders of those who buy, by their numbers.
    pub(crate) fn stock_up(&mut self, count: u64) -> Range<u64> {
        self.sell(count, &format!("{} + number % {BUYERS}", buyer(0)))
    }

    /// Processor time so far, of its own processes.
    pub(crate) fn cpu(&self) -> Duration {
        self.processes.iter().map(Process::cpu).sum()
    }

    /// Of all its processes, in KiB.
    pub(crate) fn memory(&self) -> u64 {
        self.processes.iter().map(Process::memory).sum()
    }
}

/// The number of this one's user.
pub(crate) fn buyer(order: u64) -> u64 {
    READERS * LENGTHS.len() as u64 + order % BUYERS
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.processes.clear();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Processor time so far of each process of the database server.
pub(crate) fn of_database(postgres: &Postgres) -> HashMap<i32, Duration> {
    let pids = postgres.processes().into_iter().map(nix::unistd::Pid::as_raw);
    pids.filter_map(|pid| Some((pid, watch::cpu(pid)?))).collect()
}
