//! What a process leaves that dies with many sagas open, and how fast the next one takes it back.

use std::time::{Duration, Instant};

use resilience::saga::Settings;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::purchase::{Shop, hang};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(20);

/// Sagas per second: each has done its first step, and nobody knows what became of its second. From
/// the moment at which their leases are over until the last one is taken back.
pub(crate) async fn recovered(shop: &Shop, count: u32) -> f64 {
    die(shop, count).await;
    let held = shop.holds();
    let open = || shop.number("SELECT count(*) FROM saga WHERE ended_at IS NULL");
    assert_eq!(open(), i64::from(count));

    let runtime = shop.runtime(Settings::new());
    let (end, ended) = oneshot::channel::<()>();
    let background = tokio::spawn(runtime.run(async {
        let _ = ended.await;
    }));
    let over = "UPDATE saga SET lease_until = clock_timestamp() WHERE ended_at IS NULL";
    shop.execute(over);
    let began = Instant::now();
    while open() > 0 {
        sleep(LOOK).await;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    let _ = end.send(());
    background.await.expect("it ends");
    // What was taken of the first company is given back, and of the second there was nothing.
    assert_eq!(shop.holds(), [held[0] - i64::from(count), held[1]]);
    rate
}

/// Begins so many, whose second company never answers, and goes.
async fn die(shop: &Shop, count: u32) {
    // No heartbeats: as many as these would be a load of their own.
    let runtime = shop.runtime(Settings::new().lease(Duration::from_hours(1)).timeout(FOREVER));
    let sagas = runtime.sagas();
    let process = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .expect("a process");
    shop.last().hang(true);
    process.spawn(async move { hang(&sagas, count).await });
    while shop.last().waiting() < count {
        sleep(LOOK).await;
    }
    process.shutdown_background();
    shop.last().hang(false);
}

/// Longer than any of this.
const FOREVER: Duration = Duration::from_hours(1);
