mod allocations;
mod dependency;
mod harness;
mod ours;
mod peers;

use harness::Case;

fn main() {
    let cases = vec![
        Case::new("bare", |n| dependency::succeed(n).ok()),
        ours::closed(),
        ours::slow_threshold(),
        ours::window(),
        ours::slow_threshold_and_window(),
        peers::failsafe_consecutive(),
        peers::failsafe_default(),
        peers::recloser_closed(),
        peers::tower_resilience_closed(),
        Case::new("Instant::now()", |_| std::time::Instant::now()),
        ours::open(),
        peers::failsafe_open(),
        peers::recloser_open(),
        peers::tower_resilience_open(),
    ];
    let began = std::time::Instant::now();
    for timing in harness::measure(&cases) {
        print!("{:45}", timing.name);
        for t in 0..3 {
            print!("{:9.1} ±{:5.1}", timing.median(t), timing.spread(t) / 2.0);
        }
        println!();
    }
    println!("{:?}", began.elapsed());
}
